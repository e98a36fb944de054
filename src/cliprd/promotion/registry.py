"""A champion in MLflow's registry: `promote.champion: models:/<name>`, at `tracking.uri`.

Every candidate is a version of the model `<name>`, with its package (`registry_package`), the model card as its
description, and the gate's word as tags (docs/formats.md). The model's tag `cliprd.champion` is the pointer; MLflow's
alias `champion` and some tags of versions follow from it and are repaired from it. The alias `candidate` names the
version that was registered last. A model without the tag (an older cliprd wrote none, or it is lost) is read by alias
and tags.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError
from cliprd.names import visible
from cliprd.params import Params
from cliprd.promotion import package as packages
from cliprd.promotion import pointer as pointers
from cliprd.promotion import registry_package
from cliprd.promotion.mlflow_client import errors, setting, unless_missing
from cliprd.promotion.package import Package
from cliprd.promotion.pointer import LostPointer
from cliprd.promotion.registry_claims import claimed
from cliprd.promotion.store import Entry, Pointer, Promotion, chain
from cliprd.tracking import server

Parsed = TypeVar("Parsed")
COUNT = TypeAdapter(Annotated[int, Field(strict=True, ge=1, le=9999)])
STRINGS = TypeAdapter(list[str])
SCHEME = "models:/"
CHAMPION, CANDIDATE, POINTER = "champion", "candidate", "cliprd.champion"
MOST_POINTER = 5000  # characters of a model's tag that MLflow's database holds


@contextlib.contextmanager
def opened(place: str, params: Params, *, write: bool) -> Iterator[Registry]:
    """The store of a registered model; MLflow's failures are raised as cliprd's."""
    with errors(place):
        yield Registry(place, params)


class Registry:
    """See `store.Store`."""

    def __init__(self, place: str, params: Params) -> None:
        self.place, self._params = place, params
        self.pointer = f"{place}: tag {POINTER}"
        self._name, self._uri = place.removeprefix(SCHEME), params.tracking.uri
        if not self._uri:
            raise ParamsError(f"promote.champion = {place} needs tracking.uri.", "Name MLflow's server there.")
        server.prepare()
        logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        self._versions: dict[str, Any] = {}  # oldest first; these three as `_look` has read them
        self._tags: Mapping[str, str] = {}
        self._alias = ""

    def read(self) -> tuple[Pointer | None, str | None]:
        """See `Store`."""
        self._look()
        text, alias = self._tags.get(POINTER), self._alias
        pointer = self._by_alias(alias) if text is None else pointers.parse(self.pointer, text)
        if pointer is None:
            return None, text
        champion = pointer["version"]
        if champion not in self._versions:
            raise LostPointer(f"{self.place}: version {champion}, the champion, was deleted.", state=text)
        pointer["asked_by"] = _asked_by(self._versions[champion])
        if "cliprd.version" not in self._versions[champion].tags:
            raise LostPointer(
                f"{self.place}: the champion is version {champion}, which cliprd has not registered.", state=text
            )
        known = {champion, *(each["version"] for each in (*pointer["before"], *pointer["withdrawn"]))}
        if alias in self._versions.keys() - known and "cliprd.promoted" in self._versions[alias].tags:
            raise LostPointer(f"{self.place}: version {alias} was promoted by an older cliprd.", state=text)
        for name in ("before", "withdrawn"):
            pointer[name] = [
                {**each, "asked_by": _asked_by(self._versions[each["version"]])}
                for each in pointer[name]
                if each["version"] in self._versions
            ]
        return pointer, text

    def swap(self, pointer: Pointer, instead_of: str | None) -> bool:
        """See `Store`."""
        text = _short(pointer)
        with claimed(self._client, self._name, pointer["version"], pointer["asked_by"]) as claim:
            self._look()
            if self._tags.get(POINTER) != instead_of:
                return False
            claim.check()
            self._client.set_registered_model_tag(self._name, POINTER, text)
        return True

    def settle(self, pointer: Pointer) -> bool:
        """See `Store`: aliases and tags. They are written until they agree with a pointer read after the writing.

        So the last of several that settle at once, after promotions that followed each other, leaves the newest.
        """
        written = False
        while self._show(pointer):
            written = True
            latest, _ = self.read()
            if latest is None:
                break
            pointer = latest
        return written

    def name(self, package: Package) -> str | None:
        """See `Store`."""
        for number, version in self._versions.items():
            if version.tags.get("cliprd.version") == package.digest and version.status == "READY":
                return number
        return None

    def put(
        self, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str], champion: Pointer | None
    ) -> str:
        """See `Store`."""
        self._ensure_model()
        number = self.name(package) or self._register(package, decision)
        setting(self._client.set_registered_model_alias, self._name, CANDIDATE, number)
        self.tag(number, gate=dict(decision))
        self.tag(number, **{"gate.reason": decision["reason"]})
        self.tag(number, **{f"asked_by.{key}": value for key, value in asked_by.items()})
        if champion is not None:
            figures = {key: value for key, value in decision.items() if key != "candidate"}
            self.tag(champion["version"], **{f"challenger.{number}": {**figures, "asked_by": dict(asked_by)}})
        return number

    def benchmarks(self, entry: Entry) -> tuple[Path, ...]:
        """See `Store`."""
        version = self._versions[entry["version"]]
        names = packages.benchmark_names(_tag(version, "cliprd.benchmarks", COUNT, "1"))
        folders = tuple(self._fetch(version, name) for name in names)
        scores = [manifest.read(folder, stage="benchmark") for folder in folders]
        digest = packages.digest(scores[0].inputs["model"], [each.fingerprint for each in scores])
        if digest != version.tags["cliprd.version"]:
            raise InputError(
                f"{self.place}: version {version.version} holds another student or other benchmarks than it was "
                "registered with.",
                "Choose another champion: `cliprd rollback --to VERSION`.",
            )
        return folders

    def student(self, version: str) -> Path:
        """See `Store`."""
        return self._fetch(self._client.get_model_version(self._name, version), "student")

    def check(self, entry: Entry) -> None:
        """See `Store`."""
        self.benchmarks(entry)
        self.student(entry["version"])

    def marks(self, entry: Entry) -> list[str]:
        """See `Store`."""
        return _tag(self._versions[entry["version"]], "cliprd.marks", STRINGS, "[]")

    def promotions(self) -> dict[str, Promotion]:
        """See `Store`."""
        self._look()
        champions = set()
        for number, version in self._versions.items():
            tags = version.tags
            if any(key.startswith(("cliprd.challenger.", "cliprd.rolled_back", "cliprd.promoted")) for key in tags):
                champions.add(number)
            if "cliprd.before" in tags and "cliprd.schema" not in tags:
                champions.add(number)
            champions |= {tags.get("cliprd.before"), _compared_with(tags)}
        there = [number for number in champions & self._versions.keys() if self._is_registered(number)]
        return {
            number: Promotion(version.tags.get("cliprd.before"), {}, _asked_by(version))
            for number in sorted(there, key=int, reverse=True)
            if (version := self._versions[number])
        }

    def entry(self, version: str, promotion: Promotion) -> Entry:
        """See `Store`."""
        return {"version": version, "asked_by": promotion.asked_by}

    def note(self, name: str, content: Mapping[str, Any]) -> None:
        """See `Store`: a tag of the model."""
        self._ensure_model()
        text = json.dumps(dict(content), sort_keys=True, ensure_ascii=False)
        setting(self._client.set_registered_model_tag, self._name, f"cliprd.run/{name}", text)

    def noted(self, name: str) -> dict[str, Any] | None:
        """See `Store`."""
        self._look()
        text = self._tags.get(f"cliprd.run/{name}")
        return json.loads(text) if text else None

    def tag(self, version: str, **tags: Any) -> None:
        """Set tags `cliprd.<name>` of a version; values that are no text as JSON."""
        for key, value in tags.items():
            text = visible(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False))
            setting(self._client.set_model_version_tag, self._name, version, f"cliprd.{key}", text)

    def _look(self) -> None:
        """Read the model, its versions, and which of them the alias `champion` is on."""
        versions = self._client.search_model_versions(f"name = '{self._name}'")
        self._versions = {str(each.version): each for each in sorted(versions, key=lambda each: int(each.version))}
        model = unless_missing(lambda: self._client.get_registered_model(self._name))
        self._tags = model.tags if model else {}
        self._alias = str(model.aliases.get(CHAMPION, "")) if model else ""

    def _is_registered(self, version: str) -> bool:
        return "cliprd.version" in self._versions[version].tags

    def _by_alias(self, alias: str) -> Pointer | None:
        """The pointer of a model that has no tag for it."""
        if not alias:
            return None
        version = self._versions.get(alias)
        if version is None or not self._is_registered(alias):
            raise LostPointer(
                f"{self.place}: alias '{CHAMPION}' is on version {alias}, which cliprd has not registered.", state=None
            )
        if "cliprd.before" not in version.tags:
            raise LostPointer(
                f"{self.place}: alias '{CHAMPION}' is on version {alias}, which was never promoted.", state=None
            )
        older = chain(
            alias, {number: Promotion(each.tags.get("cliprd.before")) for number, each in self._versions.items()}
        )
        gone = [number for number, each in self._versions.items() if "cliprd.rolled_back" in each.tags]
        return {
            "version": alias,
            "before": [{"version": each} for each in reversed(older)],
            "withdrawn": [{"version": each} for each in gone if each != alias],
        }

    def _show(self, pointer: Pointer) -> bool:
        """Make aliases and tags agree with the pointer. Returns whether anything was written."""
        champion, before = pointer["version"], pointer["before"]
        withdrawn = {each["version"]: each for each in pointer["withdrawn"]}
        tags = self._versions[champion].tags
        written = False
        wanted = {"before": before[-1]["version"] if before else "", "promoted": "true"}
        if missing := {key: value for key, value in wanted.items() if tags.get(f"cliprd.{key}") != value}:
            self.tag(champion, **missing)
            written = True
        for number, version in self._versions.items():
            if number in withdrawn and "cliprd.rolled_back" not in version.tags:
                self.tag(number, rolled_back=withdrawn[number].get("by") or pointer.get("rolled_back_by", {}))
            elif number not in withdrawn and "cliprd.rolled_back" in version.tags:
                self._client.delete_model_version_tag(self._name, number, "cliprd.rolled_back")
            else:
                continue
            written = True
        if self._alias != champion:
            setting(self._client.set_registered_model_alias, self._name, CHAMPION, champion)
            written = True
        candidate = unless_missing(lambda: self._client.get_model_version_by_alias(self._name, CANDIDATE))
        if candidate is not None and str(candidate.version) == champion:
            self._client.delete_registered_model_alias(self._name, CANDIDATE)
            written = True
        return written

    def _register(self, package: Package, decision: Mapping[str, Any]) -> str:
        created = registry_package.register(self._client, self._name, package, self._params, decision)
        self._look()
        first = self.name(package)
        if first is None or first == created:
            return created
        self._client.delete_model_version(self._name, created)  # another process has registered the same meanwhile
        return first

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        if unless_missing(lambda: self._client.get_registered_model(self._name)) is None:
            try:
                self._client.create_registered_model(self._name, description="Students distilled by cliprd.")
            except MlflowException as error:  # another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def _fetch(self, version: Any, part: str) -> Path:
        """A folder of a version's package, here and checked; kept for the next time."""
        from mlflow.artifacts import download_artifacts

        key = files.digest([self._uri, self._name, version.version, version.tags.get("cliprd.version")])[:16]
        folder = storage.scratch("registry", key)
        if not packages.is_intact(folder / part):
            with files.temporary_folder(folder, "fetch") as temporary:
                uri = f"{self._client.get_model_version_download_uri(self._name, version.version)}/artifacts/{part}"
                fetched = Path(download_artifacts(uri, dst_path=str(temporary), tracking_uri=self._uri))
                manifest.verify(fetched)
                shutil.rmtree(folder / part, ignore_errors=True)
                with contextlib.suppress(OSError):  # another process was faster
                    os.rename(fetched, folder / part)
        manifest.verify(folder / part)
        return folder / part


def _short(pointer: Pointer) -> str:
    """The tag's text: versions and who rolled back; all else is in the versions' tags.

    Where MLflow's database cannot hold it, the oldest of some 300 champions before are left out.
    """
    by = {key: str(value)[:500] for key, value in pointer.get("rolled_back_by", {}).items()}
    before, withdrawn = ([{"version": each["version"]} for each in pointer[name]] for name in ("before", "withdrawn"))
    while True:
        content = {"version": pointer["version"], "before": before, "withdrawn": withdrawn}
        text = json.dumps(pointers.seal({**content, **({"rolled_back_by": by} if by else {})}), separators=(",", ":"))
        if len(text) <= MOST_POINTER or not before:
            return text
        before = before[1:]


def _asked_by(version: Any) -> dict[str, str]:
    names = {key: f"cliprd.asked_by.{key}" for key in ("who", "what")}
    return {key: version.tags[name] for key, name in names.items() if name in version.tags}


def _compared_with(tags: Mapping[str, str]) -> str:
    """The champion that a version was compared with; empty where that is not known."""
    try:
        champion = json.loads(tags.get("cliprd.gate", "{}"))["champion"]
    except (ValueError, KeyError, TypeError):
        return ""
    return champion if isinstance(champion, str) else ""


def _tag(version: Any, name: str, kind: TypeAdapter[Parsed], absent: str) -> Parsed:
    """A tag's value, which is JSON; of a version without the tag that of `absent`.

    Raises:
        InputError: it is damaged, or was edited by hand.
    """
    text = version.tags.get(name, absent)
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"{SCHEME}{version.name}: tag {name} of version {version.version} is damaged: {visible(text[:40])!r}.",
            "Mend the tag, or choose another champion: `cliprd rollback --to VERSION`.",
        ) from error
