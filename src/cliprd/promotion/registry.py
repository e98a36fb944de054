"""A champion in MLflow's registry: `promote.champion: models:/<name>`, at `tracking.uri`.

Every candidate is a version of the model `<name>`, with its package (`registry_package`), the model card as its
description, and the gate's word as tags. The alias `candidate` names the last that was registered, and `champion` the
one in use: that alias is the one fact, replaced in one step; all else is written before it or can be done again. Where
it is lost (deleted, or with its version), the versions' tags prove that there was a champion, and nothing is promoted
until `rollback` to one of them has set it again.

| tag of a version                 | what                                                                             |
|----------------------------------|----------------------------------------------------------------------------------|
| `cliprd.version`                 | digest of student and benchmarks: equal ones are registered once                 |
| `cliprd.marks`                   | what the student is recognised by (`champion.marks_of`), as JSON                 |
| `cliprd.benchmarks`              | how many benchmark folders it holds                                              |
| `cliprd.gate`, `.gate.reason`    | the decision as JSON; its reason                                                 |
| `cliprd.asked_by.who`, `.what`   | who asked, and for what                                                          |
| `cliprd.challenger.<version>`    | on a champion: what the gate said of a version that was held against it, as JSON |
| `cliprd.before`                  | the champion before this one; empty: it was the first                            |
| `cliprd.promoted`                | it has been champion: written after the alias                                    |
| `cliprd.schema`                  | of these tags; a version without it is of a cliprd that wrote no `promoted`      |
| `cliprd.rolled_back`             | who took it out of use, and for what, as JSON                                    |
| `cliprd.claim.*`                 | a change under way (`registry_claims`)                                           |
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cliprd import files, lineage, storage
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError, RetryableError
from cliprd.names import visible
from cliprd.params import Params
from cliprd.promotion import registry_package, versions
from cliprd.promotion.registry_claims import claimed
from cliprd.tracking import server
from cliprd.tracking.runs import run_of

if TYPE_CHECKING:
    from cliprd.promotion.champion import Champion, Package

Parsed = TypeVar("Parsed")
SCHEME = "models:/"
CHAMPION, CANDIDATE = "champion", "candidate"
SCHEMA = "1"  # of the tags
DESCRIPTION = 5000  # characters that MLflow's database holds
_HEALING = {
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED",
    "DEADLINE_EXCEEDED", "CANCELLED",
}  # fmt: skip


class LostAlias(InputError):
    """The alias is lost or was moved by hand; `cliprd rollback --to` sets it again."""


class _Registry:
    """The model of one place."""

    def __init__(self, place: str, params: Params) -> None:
        self.place, self.params = place, params
        self.name, self.uri = place.removeprefix(SCHEME), params.tracking.uri
        if not self.uri:
            raise ParamsError(f"promote.champion = {place} needs tracking.uri.", "Name MLflow's server there.")
        server.prepare()
        logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def champion(self) -> Any | None:
        """The version in use; None where none was promoted.

        Raises:
            LostAlias: the alias is on no version, or on one that was never promoted, though there was a champion.
        """
        found = _unless_missing(lambda: self.client.get_model_version_by_alias(self.name, CHAMPION))
        if found is None:
            if past := self.past_champions():
                # A first promotion that ends meanwhile sets the alias, then the tag.
                found = _unless_missing(lambda: self.client.get_model_version_by_alias(self.name, CHAMPION))
            if past and found is None:
                raise LostAlias(
                    f"{self.place}: no version has the alias '{CHAMPION}', but there was a champion.", self._way_back()
                )
        elif "cliprd.version" not in found.tags:
            raise LostAlias(
                f"{self.place}: alias '{CHAMPION}' is on version {found.version}, which cliprd has not registered.",
                self._way_back(),
            )
        elif "cliprd.before" not in found.tags:
            raise LostAlias(
                f"{self.place}: alias '{CHAMPION}' is on version {found.version}, which was never promoted.",
                self._way_back(),
            )
        return found

    def past_champions(self) -> list[str]:
        """Versions that were champion, the latest first; those that are deleted but named by others included."""
        found: set[str] = set()
        for version in self.versions():
            tags = version.tags
            beside = any(
                key.startswith(("cliprd.challenger.", "cliprd.rolled_back", "cliprd.promoted")) for key in tags
            )
            if beside or ("cliprd.before" in tags and "cliprd.schema" not in tags):
                found.add(str(version.version))
            found |= {number for number in (tags.get("cliprd.before", ""), _held_in(tags)) if number.isdecimal()}
        return sorted(found, key=int, reverse=True)

    def _way_back(self) -> str:
        left = {str(version.version) for version in self.versions()}
        if not (past := [number for number in self.past_champions() if number in left]):
            return "Remove the alias, or name another model in promote.champion."
        others = f" (champions before it: {', '.join(past[1:])})" if past[1:] else ""
        return f"Restore it: `cliprd rollback --to {past[0]}`{others}."

    def versions(self) -> list[Any]:
        """All, the oldest first."""
        return sorted(self.client.search_model_versions(f"name = '{self.name}'"), key=lambda found: int(found.version))

    def version(self, number: str) -> Any | None:
        """One of them."""
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):  # MLflow's databases hold no more
            return None
        return _unless_missing(lambda: self.client.get_model_version(self.name, number))

    def tag(self, version: str, **tags: Any) -> None:
        """Tags `cliprd.<name>`, `_` standing for a point."""
        for key, value in tags.items():
            text = visible(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False))
            _written(functools.partial(self.client.set_model_version_tag, self.name, version, f"cliprd.{key}", text))

    def fetch(self, version: Any, part: str) -> Path:
        """A folder of a version's package, here and checked; kept for the next time."""
        from mlflow.artifacts import download_artifacts

        known = files.digest([self.uri, self.name, version.version, version.tags.get("cliprd.version")])[:16]
        folder = storage.scratch("registry", known)
        if not _whole(folder / part):
            with files.temporary_folder(folder, "fetch") as place:
                uri = self.client.get_model_version_download_uri(self.name, version.version)
                came = Path(download_artifacts(f"{uri}/artifacts/{part}", dst_path=str(place), tracking_uri=self.uri))
                manifest.verify(came)
                shutil.rmtree(folder / part, ignore_errors=True)
                with contextlib.suppress(OSError):  # another process was faster
                    os.rename(came, folder / part)
        manifest.verify(folder / part)
        return folder / part


def current(place: str, params: Params) -> Champion | None:
    """See `champion.current`."""
    from cliprd.promotion.champion import Champion

    with _errors(place):
        registry = _Registry(place, params)
        held = registry.champion()
        if held is None:
            return None
        names = versions.benchmark_names(_tag(held, "cliprd.benchmarks", _count, "1"))
        benchmarks = tuple(registry.fetch(held, name) for name in names)
        _check_package(registry, held, benchmarks)
        gone = [found for found in registry.versions() if "cliprd.rolled_back" in found.tags]
        marks = _tag(held, "cliprd.marks", _strings, "[]")
        withdrawn = [mark for version in gone for mark in _tag(version, "cliprd.marks", _strings, "[]")]
    return Champion(
        version=str(held.version),
        benchmarks=benchmarks,
        lineage=lineage.load(benchmarks[0]),
        student=functools.partial(_student, registry, held),
        withdrawn=tuple(mark for mark in withdrawn if mark not in marks),
    )


def publish(
    place: str, params: Params, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]
) -> str:
    """See `champion.publish`."""
    with _errors(place):
        registry = _Registry(place, params)
        held = registry.champion()
        if held is not None and held.tags.get("cliprd.version") == package.version:
            return str(held.version)
        _held_against(place, held, decision)
        version = _register(registry, package, decision)
        with claimed(registry.client, registry.name, version, asked_by) as claim:
            held = registry.champion()
            if held is not None and str(held.version) == version:
                return version
            _held_against(place, held, decision)
            _tell(registry, version, held, decision, asked_by)
            registry.tag(version, before=str(held.version) if held else "")
            claim.check()
            registry.client.set_registered_model_alias(registry.name, CHAMPION, version)
            _settle(registry, version)
    return version


def refuse(
    place: str, params: Params, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]
) -> str:
    """See `champion.refuse`."""
    with _errors(place):
        registry = _Registry(place, params)
        registry.champion()  # first: it may be lost
        version = _register(registry, package, decision)
        held = registry.champion()
        if held is None or str(held.version) != version:
            _tell(registry, version, held, decision, asked_by)
    return version


def tidy(place: str, params: Params) -> None:
    """See `champion.tidy`."""
    with _errors(place):
        registry = _Registry(place, params)
        if (held := registry.champion()) is not None:
            _settle(registry, str(held.version))


def rollback(place: str, params: Params, asked_by: Mapping[str, str], to: str | None) -> str:
    """See `champion.rollback`."""
    with _errors(place):
        registry = _Registry(place, params)
        try:
            held = registry.champion()
        except LostAlias:
            if to is None:
                raise
            return _restore(registry, to, asked_by)
        if held is None:
            raise InputError(f"{place} has no champion.", "There is nothing to roll back.")
        with claimed(registry.client, registry.name, str(held.version), asked_by) as claim:
            now = registry.champion()
            if now is None or now.version != held.version:
                raise InputError(
                    f"{place}: version {now.version if now else 'none'} has become champion meanwhile.",
                    "Look, then try again.",
                )
            before = _before(registry, now)
            if to is None and not before:
                raise InputError(f"{place}: version {now.version} is the first champion.", "There is none before it.")
            wanted = to or before[0]
            target = registry.version(wanted)
            if target is None or (wanted not in before and "cliprd.before" not in target.tags):
                raise _never_champion(registry, wanted)
            _student(registry, target)  # what comes into use must be intact
            if wanted == str(now.version):
                return wanted
            if wanted in before:
                for going in (str(now.version), *before[: before.index(wanted)]):
                    registry.tag(going, rolled_back=dict(asked_by))
            else:  # one that was taken out of use comes back; the present champion is the one before it
                registry.tag(wanted, before=str(now.version))
            claim.check()
            registry.client.set_registered_model_alias(registry.name, CHAMPION, wanted)
            _settle(registry, wanted)
    return wanted


def _restore(registry: _Registry, wanted: str, asked_by: Mapping[str, str]) -> str:
    """Set the lost alias. Champions that are not before `wanted` came after it, and are withdrawn as by a rollback."""
    target = registry.version(wanted)
    if target is None or wanted not in registry.past_champions() or "cliprd.version" not in target.tags:
        raise _never_champion(registry, wanted)
    _student(registry, target)
    with claimed(registry.client, registry.name, wanted, asked_by) as claim:
        with contextlib.suppress(LostAlias):
            now = registry.champion()
            raise InputError(
                f"{registry.place}: version {now.version if now else 'none'} has become champion meanwhile.",
                "Look, then try again.",
            )
        if "cliprd.before" not in target.tags:
            registry.tag(wanted, before="")
        older = _before(registry, target)
        for going in registry.past_champions():
            if going != wanted and going not in older and registry.version(going) is not None:
                registry.tag(going, rolled_back=dict(asked_by))
        claim.check()
        registry.client.set_registered_model_alias(registry.name, CHAMPION, wanted)
        _settle(registry, wanted)
    return wanted


def _never_champion(registry: _Registry, wanted: str) -> InputError:
    known = ", ".join(registry.past_champions()) or "none"
    return InputError(f"{registry.place}: version {wanted} was never champion.", f"Those were {known}.")


def note(place: str, params: Params, name: str, content: Mapping[str, Any]) -> None:
    """See `champion.note`: a tag of the model."""
    with _errors(place):
        registry = _Registry(place, params)
        _ensure(registry)
        text = json.dumps(dict(content), sort_keys=True, ensure_ascii=False)
        tag = f"cliprd.run/{name}"
        _written(lambda: registry.client.set_registered_model_tag(registry.name, tag, text))


def noted(place: str, params: Params, name: str) -> dict[str, Any] | None:
    """See `champion.noted`."""
    with _errors(place):
        registry = _Registry(place, params)
        model = _unless_missing(lambda: registry.client.get_registered_model(registry.name))
        text = model.tags.get(f"cliprd.run/{name}") if model else None
    return json.loads(text) if text else None


def _register(registry: _Registry, package: Package, decision: Mapping[str, Any]) -> str:
    """The version that holds the package, made if there is none yet; it becomes `candidate`."""
    _ensure(registry)
    number = _registered(registry, package) or _upload(registry, package, decision)
    champion = registry.champion()
    if champion is None or str(champion.version) != number:
        _written(lambda: registry.client.set_registered_model_alias(registry.name, CANDIDATE, number))
    return number


def _registered(registry: _Registry, package: Package) -> str | None:
    for found in registry.versions():
        if found.tags.get("cliprd.version") == package.version and found.status == "READY":
            return str(found.version)
    return None


def _upload(registry: _Registry, package: Package, decision: Mapping[str, Any]) -> str:
    """A killed upload leaves a logged model without a version, which is gone on with."""
    client, run = registry.client, _run(registry, package.student)
    experiment = run.info.experiment_id if run else _experiment(registry)
    tags = {"cliprd.version": package.version, "cliprd.schema": SCHEMA}
    query = f"tags.`cliprd.version` = '{package.version}'"
    left = client.search_logged_models([experiment], filter_string=query, max_results=1)
    with files.temporary_folder(storage.scratch("packages"), "model") as place:
        folder = place / "model"
        card = registry_package.write(package, registry.params, decision, folder)
        model = (
            left[0]
            if left
            else client.create_logged_model(
                experiment,
                name=registry.name,
                source_run_id=run.info.run_id if run else None,
                tags=tags,
                model_type="CLIP",
            )
        )
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    with _default_uri(registry.uri):
        made = client.create_model_version(
            registry.name,
            source=f"{SCHEME}{model.model_id}",
            run_id=run.info.run_id if run else None,
            tags={**tags, "cliprd.marks": json.dumps(package.marks), "cliprd.benchmarks": str(len(package.benchmarks))},
            description=_description(card),
            model_id=model.model_id,
        )
    first = _registered(registry, package)
    if first is None or first == str(made.version):
        return str(made.version)
    client.delete_model_version(registry.name, str(made.version))  # another process has registered the same meanwhile
    return first


def _tell(
    registry: _Registry,
    version: str,
    held: Any | None,
    decision: Mapping[str, Any],
    asked_by: Mapping[str, str],
) -> None:
    """The gate's word as tags of both versions."""
    registry.tag(version, gate=dict(decision))
    registry.tag(version, **{"gate.reason": decision["reason"]})
    registry.tag(version, **{f"asked_by.{key}": value for key, value in asked_by.items()})
    if held is not None:
        figures = {key: value for key, value in decision.items() if key != "candidate"}
        registry.tag(str(held.version), **{f"challenger.{version}": {**figures, "asked_by": dict(asked_by)}})


def _settle(registry: _Registry, version: str) -> None:
    """A champion was promoted, is no candidate, and not out of use; where a kill comes before this, `tidy` does it."""
    with contextlib.suppress(Exception):  # the promotion is done; a repetition or the next one tidies up
        tags = registry.client.get_model_version(registry.name, version).tags
        if "cliprd.promoted" not in tags:
            registry.tag(version, promoted="true")
        if "cliprd.rolled_back" in tags:
            registry.client.delete_model_version_tag(registry.name, version, "cliprd.rolled_back")
        if str(registry.client.get_model_version_by_alias(registry.name, CANDIDATE).version) == version:
            registry.client.delete_registered_model_alias(registry.name, CANDIDATE)


def _held_in(tags: Mapping[str, str]) -> str:
    """The champion that a version was compared with; empty where that is not known."""
    try:
        found = json.loads(tags.get("cliprd.gate", "{}"))["champion"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def _check_package(registry: _Registry, version: Any, benchmarks: tuple[Path, ...]) -> None:
    """A version's benchmarks are those it was registered with, and of its student."""
    scores = [manifest.read(folder, stage="benchmark") for folder in benchmarks]
    made_of = versions.name(scores[0].inputs["model"], tuple(each.fingerprint for each in scores))
    if made_of != version.tags["cliprd.version"]:
        raise InputError(
            f"{registry.place}: version {version.version} holds another student or other benchmarks than it was "
            "registered with.",
            "Choose another champion: `cliprd rollback --to VERSION`.",
        )


def _tag(version: Any, name: str, parse: Callable[[str], Parsed], absent: str) -> Parsed:
    """A tag's value; of a version without the tag that of `absent`.

    Raises:
        InputError: it is damaged, or was edited by hand.
    """
    text = version.tags.get(name, absent)
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{SCHEME}{version.name}: tag {name} of version {version.version} is damaged: {visible(text[:40])!r}.",
            "Mend the tag, or choose another champion: `cliprd rollback --to VERSION`.",
        ) from error


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ValueError(text)
    return int(text)


def _strings(text: str) -> list[str]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(text)
    return found


def _before(registry: _Registry, version: Any) -> list[str]:
    """Versions that were champion before this one, the latest first."""
    found: list[str] = []
    while (number := version.tags.get("cliprd.before")) and number not in found:
        found.append(number)
        version = registry.version(number)
        if version is None:  # deleted by hand: what is behind it cannot be known
            return found[:-1]
    return found


def _held_against(place: str, held: Any | None, decision: Mapping[str, Any]) -> None:
    now = str(held.version) if held else None
    if now != decision["champion"]:
        who, what = ((held.tags if held else {}).get(f"cliprd.asked_by.{key}", "unknown") for key in ("who", "what"))
        told = f", asked for by {who} ({what})" if held else ""
        raise InputError(
            f"{place}: {f'version {now}' if now else 'nobody'} has become champion since the gate held the student "
            f"against {decision['champion'] or 'nobody'}{told}.",
            "Run the gate again.",
        )


def _student(registry: _Registry, version: Any) -> Path:
    with _errors(registry.place):
        return registry.fetch(version, "student")


def _run(registry: _Registry, student: Path) -> Any | None:
    """The MLflow run of the training, where this server has it; a training that never reached one has none."""
    run_id = run_of(registry.params, student)
    return _unless_missing(lambda: registry.client.get_run(run_id)) if run_id else None


def _experiment(registry: _Registry) -> str:
    name = registry.params.tracking.experiment
    found = registry.client.get_experiment_by_name(name)
    return str(found.experiment_id if found else registry.client.create_experiment(name))


def _ensure(registry: _Registry) -> None:
    """The registered model is there."""
    from mlflow.exceptions import MlflowException

    if _unless_missing(lambda: registry.client.get_registered_model(registry.name)) is None:
        try:
            registry.client.create_registered_model(registry.name, description="Students distilled by cliprd.")
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


@contextlib.contextmanager
def _default_uri(uri: str) -> Iterator[None]:
    """MLflow's own store in a database file looks a logged model up at the process's default address, whoever asks."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _description(card: str) -> str:
    end = f"\n\n… the rest is in {registry_package.CARD}."
    return card if len(card) <= DESCRIPTION else card[: DESCRIPTION - len(end)] + end


def _whole(folder: Path) -> bool:
    try:
        manifest.verify(folder)
    except InputError:
        return False
    return True


def _written(write: Callable[[], None]) -> None:
    """Set a tag or an alias. Two that insert a new one at once collide in MLflow's database; again, it is an update."""
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException as error:
        if not re.search(r"UniqueViolation|UNIQUE constraint|Duplicate entry", str(error)):
            raise
        write()


def _unless_missing(call: Any) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        # An alias that is not there is INVALID_PARAMETER_VALUE to some of MLflow's stores. Nothing else may pass for
        # "not there": a server that is down would have no champion, and every candidate be the first.
        absent = error.error_code == "INVALID_PARAMETER_VALUE" and re.search(r"alias \S+ not found", str(error))
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or absent:
            return None
        raise


@contextlib.contextmanager
def _errors(place: str) -> Iterator[None]:
    """MLflow's failures as ours, on one line, without credentials of an address."""
    import requests
    from mlflow.exceptions import MlflowException

    def told(error: Exception) -> str:
        return server.clean(str(error))[:300]

    try:
        yield
    except MlflowException as error:
        if error.error_code in _HEALING:
            raise RetryableError(
                f"{place}: {told(error)}", "Check tracking.uri and the server, then try again."
            ) from error
        raise InputError(f"{place}: {told(error)}", "Check promote.champion, tracking.uri and your rights.") from error
    except (requests.exceptions.RequestException, ConnectionError, TimeoutError) as error:
        raise RetryableError(
            f"{place}: {told(error)}", "Check tracking.uri and the network, then try again."
        ) from error
