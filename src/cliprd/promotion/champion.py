"""The champion, the student that is in use, in whatever place `promote.champion` names.

`models:/<name>` is MLflow's registry at `tracking.uri` (`registry`), anything else a folder, local or in S3
(`folder_store`). Both keep every candidate with what the gate said of it, who asked and for what, and one pointer
(`pointer`) that names the champion and those before it. The pointer decides; it is replaced in one step, and only by a
process that has read what it replaces, so of several that try at once one wins. All else follows from it and is
repaired from it. Where it is lost or damaged, the versions prove that there was a champion, and nothing is promoted
until `rollback` to one of them has restored it.
"""

from __future__ import annotations

import getpass
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliprd import lineage
from cliprd.errors import InputError, ParamsError
from cliprd.params import Params
from cliprd.promotion import package as packages
from cliprd.promotion.pointer import LostPointer
from cliprd.promotion.store import Entry, Pointer, Store, chain

REGISTRY = "models:/"
OF_CHAMPION = ("before", "withdrawn", "rolled_back_by", "decision")  # not kept of the champions before


@dataclass(frozen=True)
class Champion:
    """The student in use.

    Attributes:
        version: the registry's number, or a digest of the manifests.
        benchmarks: its scores, fetched and checked; the student's own first, then those of its recipe's other seeds.
        lineage: the content of its `lineage.json`; None where it has none.
        student: fetches the student's folder, checked; may take long.
        withdrawn: marks (`package.marks_of`) of students that a rollback has taken out of use.
    """

    version: str
    benchmarks: tuple[Path, ...]
    lineage: dict[str, Any] | None
    student: Callable[[], Path] = field(repr=False)
    withdrawn: tuple[str, ...] = ()


def current(place: str, params: Params) -> Champion | None:
    """The champion in `place`; None where none was promoted yet.

    Raises:
        InputError: it is damaged. RetryableError: a store or server failed.
    """
    with _opened(place, params, write=False) as store:
        pointer, _ = _read(store)
        if pointer is None:
            return None
        benchmarks, marks = store.benchmarks(pointer), store.marks(pointer)
        withdrawn = [mark for entry in pointer["withdrawn"] for mark in store.marks(entry)]
    version = pointer["version"]

    def student() -> Path:
        with _opened(place, params, write=False) as store:
            return store.student(version)

    return Champion(
        version=version,
        benchmarks=benchmarks,
        lineage=lineage.load(benchmarks[0]),
        student=student,
        withdrawn=tuple(mark for mark in withdrawn if mark not in marks),
    )


def publish(
    place: str,
    params: Params,
    student: Path,
    benchmarks: Sequence[Path],
    decision: Mapping[str, Any],
    asked_by: Mapping[str, str],
) -> str:
    """Make `student` the champion; earlier ones stay where they are. Repeating it changes nothing.

    Args:
        place: of the champion.
        params: `tracking.uri` and `promote` are used.
        student: folder of `distill`.
        benchmarks: folders of `benchmark`; the student's own is among them, others are of its recipe's further seeds.
        decision: of the gate. Its `champion` is the version that the candidate was compared with.
        asked_by: `{"who", "what"}`.

    Returns:
        The student's version.

    Raises:
        ParamsError: no place is named.
        InputError: a folder is damaged, the decision is not of these folders or is a refusal, or another student has
            become champion meanwhile, who is named.
        RetryableError: a store or server failed; the champion is as before, or the new one, and never a part.
    """
    check_named(place)
    package = packages.pack(student, benchmarks)
    if not decision.get("passed"):
        raise InputError(f"The gate refused: {decision.get('reason', 'no reason given')}.", "Nothing was promoted.")
    if sorted(decision.get("candidate", package.scores)) != sorted(package.scores):
        raise InputError("The gate's decision is of other benchmarks than these.", "Run the gate on them.")
    with _opened(place, params) as store:
        pointer, state = _read_settled(store)
        if pointer and pointer["version"] == store.name(package):
            return str(pointer["version"])
        _check_unchanged(place, pointer, decision)
        version = store.put(package, decision, asked_by, pointer)
        new: Pointer = {
            "version": version,
            "marks": list(package.marks),
            "benchmarks": len(package.benchmarks),
            "decision": dict(decision),
            "asked_by": dict(asked_by),
            "before": [*pointer["before"], _entry_before(pointer)] if pointer else [],
            "withdrawn": [each for each in pointer["withdrawn"] if each["version"] != version] if pointer else [],
        }
        if not store.swap(new, state):
            winner, _ = _read(store)
            if winner is None or winner["version"] != version:  # else: the same promotion, twice at once
                _check_unchanged(place, winner, decision)
                raise InputError(f"{place}: its champion was changed at the same time.", "Run the gate again.")
        store.settle(new)
    return version


def refuse(
    place: str,
    params: Params,
    student: Path,
    benchmarks: Sequence[Path],
    decision: Mapping[str, Any],
    asked_by: Mapping[str, str],
) -> str:
    """Keep `student` with the gate's refusal; the champion stays. Arguments and errors as of `publish`."""
    check_named(place)
    package = packages.pack(student, benchmarks)
    with _opened(place, params) as store:
        pointer, _ = _read_settled(store)
        if pointer and pointer["version"] == store.name(package):
            return str(pointer["version"])
        return store.put(package, decision, asked_by, pointer)


def rollback(place: str, params: Params, asked_by: Mapping[str, str], to: str | None = None) -> str:
    """Make the champion before this one the champion again, or version `to`; the gate refuses the one that goes.

    Returns:
        The version that is champion now.

    Raises:
        InputError: there is none before, no such version, or another champion by now.
        ParamsError: no place is named, or `to` is empty. RetryableError: as of `publish`.
    """
    check_named(place)
    if to is not None and not to.strip():
        raise ParamsError("--to is empty.", "Give a version, or leave it out for the champion before this one.")
    with _opened(place, params) as store:
        try:
            pointer, state = _read_settled(store)
        except LostPointer as lost:
            if to is None:
                raise
            new, state = _restored(store, to, asked_by), lost.state
        else:
            new = _rolled_back(store, pointer, to, asked_by)
            if new is pointer:
                return str(new["version"])
        if not store.swap(new, state):
            winner, _ = _read(store)
            raise InputError(f"{place}: {_named(winner)} has become champion meanwhile.", "Look at it, then try again.")
        store.settle(new)
    return str(new["version"])


def tidy(place: str, params: Params) -> None:
    """Write what a promotion has left out that was killed after the pointer; remove leftovers of killed processes."""
    check_named(place)
    with _opened(place, params) as store:
        _read_settled(store)


def note(place: str, params: Params, name: str, content: Mapping[str, Any]) -> None:
    """Keep a small note on a run beside the champion, under a name such as `<run>/gate`."""
    with _opened(place, params, write=False) as store:
        store.note(name, content)


def noted(place: str, params: Params, name: str) -> dict[str, Any] | None:
    """What `note` has kept; None where it has nothing."""
    with _opened(place, params, write=False) as store:
        return store.noted(name)


def asker(reason: str = "") -> dict[str, str]:
    """`asked_by` of this process: who is the CI's actor or the login name, what the reason or the CI run's address."""
    environment = os.environ
    who = environment.get("GITHUB_ACTOR") or environment.get("GITLAB_USER_LOGIN") or ""
    if not who:
        try:
            who = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            who = f"uid {os.getuid()}"
    run = ""
    if environment.get("GITHUB_RUN_ID"):
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        run = f"{server}/{environment.get('GITHUB_REPOSITORY', '')}/actions/runs/{environment['GITHUB_RUN_ID']}"
    return {"who": who, "what": reason or run or environment.get("CI_JOB_URL", "") or "by hand"}


def check_named(place: str) -> None:
    """Raise ParamsError where `promote.champion` is empty."""
    if not place:
        raise ParamsError(
            "promote.champion names no place for a champion.", "Give models:/<name>, a folder or an s3:// prefix."
        )


def _opened(place: str, params: Params, *, write: bool = True) -> AbstractContextManager[Store]:
    backend = "registry" if place.startswith(REGISTRY) else "folder_store"
    store: AbstractContextManager[Store] = importlib.import_module(f"cliprd.promotion.{backend}").opened(
        place, params, write=write
    )
    return store


def _read(store: Store) -> tuple[Pointer | None, Any]:
    """The pointer and its state; None where no student was promoted yet.

    Raises:
        LostPointer: it is damaged, or missing although there was a champion.
    """
    try:
        pointer, state = store.read()
        if pointer is None and (promotions := store.promotions()):
            pointer, state = store.read()  # a first promotion that ended meanwhile has written both
            if pointer is None:
                raise LostPointer(
                    f"{store.pointer} is missing, but {len(promotions)} of the versions there were promoted.",
                    state=state,
                )
        return pointer, state
    except LostPointer as lost:
        raise LostPointer(lost.problem, _remedy(store), state=lost.state) from lost


def _read_settled(store: Store) -> tuple[Pointer | None, Any]:
    """As `_read`; what a kill or a change by hand has left of another champion is repaired, with a line."""
    pointer, state = _read(store)
    if pointer is not None and store.settle(pointer):
        print(f"cliprd: {store.place}: repaired what follows from its champion, {_named(pointer)}.", file=sys.stderr)
    return pointer, state


def _remedy(store: Store) -> str:
    intact = []
    for version, promotion in store.promotions().items():
        try:
            store.entry(version, promotion)
        except InputError:
            continue
        intact.append(version)
    if not intact:
        return "Put the champion back from a copy, or name another place in promote.champion."
    others = f" (champions before it: {', '.join(intact[1:])})" if intact[1:] else ""
    return f"Restore it: `cliprd rollback --to {intact[0]}`{others}."


def _rolled_back(store: Store, pointer: Pointer | None, to: str | None, asked_by: Mapping[str, str]) -> Pointer:
    """The pointer after a rollback; `pointer` itself where that changes nothing."""
    if pointer is None:
        raise InputError(f"{store.place} has no champion.", "There is nothing to roll back.")
    before, withdrawn = pointer["before"], pointer["withdrawn"]
    known: dict[str, Entry] = {each["version"]: each for each in (*withdrawn, *before, pointer)}
    if to is None and not before:
        raise InputError(f"{store.place}: {_named(pointer)} is the first champion.", "There is none before it.")
    version = to or before[-1]["version"]
    if version not in known:
        raise _never_champion(store, version, reversed(known))
    store.check(known[version])
    if version == pointer["version"]:
        return pointer
    leaving = [_entry_before(pointer)]
    older = [each["version"] for each in before]
    if version in older:
        index = older.index(version)
        leaving, before = [*before[index + 1 :], *leaving], before[:index]
        withdrawn = [*withdrawn, *({**each, "by": dict(asked_by)} for each in leaving)]
    else:  # one that was withdrawn comes back; the present champion is the one before it
        before = [*before, *leaving]
        withdrawn = [each for each in withdrawn if each["version"] != version]
    entry = {name: value for name, value in known[version].items() if name != "by"}
    return {**entry, "rolled_back_by": dict(asked_by), "before": before, "withdrawn": withdrawn}


def _restored(store: Store, version: str, asked_by: Mapping[str, str]) -> Pointer:
    """A pointer to `version`, from what the versions record themselves.

    Champions that are not before it by these records came after it, and are withdrawn as by a rollback.
    """
    promotions = store.promotions()
    if version not in promotions:
        raise _never_champion(store, version, promotions)
    older, entries = chain(version, promotions), {}
    for each, promotion in promotions.items():
        try:
            entries[each] = store.entry(each, promotion)
        except InputError as error:
            if each == version:
                raise
            print(f"cliprd: {error.problem} The champions before are kept without it.", file=sys.stderr)
    store.check(entries[version])
    return {
        **entries[version],
        "decision": promotions[version].decision,
        "rolled_back_by": dict(asked_by),
        "before": [entries[each] for each in reversed(older) if each in entries],
        "withdrawn": [
            {**entry, "by": dict(asked_by)} for each, entry in entries.items() if each not in (version, *older)
        ],
    }


def _entry_before(pointer: Pointer) -> Entry:
    """The champion as the entry of a champion before."""
    return {"marks": [], **{name: value for name, value in pointer.items() if name not in OF_CHAMPION}}


def _check_unchanged(place: str, pointer: Pointer | None, decision: Mapping[str, Any]) -> None:
    """The champion is still the one that the gate compared the candidate with."""
    if (pointer["version"] if pointer else None) == decision["champion"]:
        return
    by = (pointer or {}).get("asked_by", {})
    asked = f", asked for by {by.get('who')} ({by.get('what')})" if by else ""
    compared = f"version {decision['champion']}" if decision["champion"] else "no champion"
    raise InputError(
        f"{place}: {_named(pointer)} has become champion since the gate compared the student with {compared}{asked}.",
        "Run the gate again.",
    )


def _never_champion(store: Store, version: str, known: Any) -> InputError:
    return InputError(
        f"{store.place}: version {version} was never champion.", f"Those were {', '.join(known) or 'none'}."
    )


def _named(pointer: Pointer | None) -> str:
    return f"version {pointer['version']}" if pointer else "none"
