"""A champion in a folder, local or s3://, whose `champion.json` names the student that is in use.

    champion.json     see `champion_pointer`; replaced last and in one step
    <version>/        of every candidate: student, benchmarks and the gate's decision (`champion_versions`)
    runs/             notes on runs

`champion.json` is only replaced by a process that has read its present content (`storage.swap`), so of two at once one
wins. Where it is lost or damaged, the versions beside it prove that there was a champion, and nothing is promoted until
`rollback` to one of them has restored it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprd import files, lineage, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder, put_folder
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.promotion import pointer, versions
from cliprd.promotion.pointer import LostPointer
from cliprd.storage.writers import writing

if TYPE_CHECKING:
    from cliprd.promotion.champion import Champion, Package

POINTER = pointer.NAME
PRESENT = ("before", "withdrawn", "rolled_back_by", "decision")  # of the champion alone, not of those before it


def current(place: str, params: Params) -> Champion | None:
    """See `champion.current`."""
    from cliprd.promotion.champion import Champion

    held, _ = _read(place)
    if held is None:
        return None
    benchmarks = versions.check(place, held["version"], held.get("benchmarks", 1))
    return Champion(
        version=held["version"],
        benchmarks=benchmarks,
        lineage=lineage.load(benchmarks[0]),
        student=functools.partial(_student, storage.join(place, held["version"])),
        withdrawn=tuple(
            mark for entry in _withdrawn(held) for mark in entry["marks"] if mark not in held.get("marks", ())
        ),
    )


def publish(
    place: str, params: Params, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]
) -> str:
    """See `champion.publish`."""
    version = package.version
    with _writing(place):
        held, seen = _read(place)
        if held is not None:
            _keep_decision(place, held)
            if held["version"] == version:
                return version
        _held_against(place, held, decision)
        _put(place, package)
        found = {
            **_entry(version, package, decision, asked_by),
            "before": [*_before(held), *([_bare(held)] if held else [])],
            "withdrawn": [entry for entry in _withdrawn(held) if entry["version"] != version],
        }
        if not _replace(place, found, seen):
            now, _ = _read(place)
            if now is None or now["version"] != version:  # else: the same promotion, twice at once
                _held_against(place, now, decision)
                raise InputError(f"{place}: its champion was changed at the same time.", "Run the gate again.")
        versions.write_decision(place, version, decision, asked_by)
    return version


def refuse(
    place: str, params: Params, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]
) -> str:
    """See `champion.refuse`."""
    with _writing(place):
        held, _ = _read(place)
        if held is not None:
            _keep_decision(place, held)
        if held is None or held["version"] != package.version:
            _put(place, package)
            versions.write_decision(place, package.version, decision, asked_by)
    return package.version


def tidy(place: str, params: Params) -> None:
    """See `champion.tidy`."""
    with _writing(place):
        held, _ = _read(place)
        if held is not None:
            _keep_decision(place, held)


def rollback(place: str, params: Params, asked_by: Mapping[str, str], to: str | None) -> str:
    """See `champion.rollback`."""
    with _writing(place):
        try:
            held, seen = _read(place)
        except LostPointer as lost:
            if to is None:
                raise
            return _restore(place, to, asked_by, lost.content)
        return _roll_back(place, held, seen, asked_by, to)


def _roll_back(
    place: str, held: Mapping[str, Any] | None, seen: bytes | None, asked_by: Mapping[str, str], to: str | None
) -> str:
    if held is None:
        raise InputError(f"{place} has no champion.", "There is nothing to roll back.")
    _keep_decision(place, held)
    before, withdrawn = _before(held), _withdrawn(held)
    known = {entry["version"]: entry for entry in (*withdrawn, *before, held)}
    if to is None and not before:
        raise InputError(f"{place}: {held['version']} is the first champion.", "There is none before it.")
    wanted = to or before[-1]["version"]
    if wanted not in known:
        raise InputError(f"{place}: version {wanted} was never champion.", f"Those were {', '.join(known)}.")
    versions.check(place, wanted, known[wanted].get("benchmarks", 1))
    if wanted == held["version"]:
        return wanted
    older = [entry["version"] for entry in before]
    going = [_bare(held)]
    if wanted in older:
        place_of = older.index(wanted)
        going, before = [*before[place_of + 1 :], *going], before[:place_of]
        withdrawn = [*withdrawn, *({**entry, "by": dict(asked_by)} for entry in going)]
    else:  # one that was taken out of use comes back; the present champion is the one before it
        before = [*before, *going]
        withdrawn = [entry for entry in withdrawn if entry["version"] != wanted]
    again = {key: value for key, value in known[wanted].items() if key != "by"}
    found = {**again, "rolled_back_by": dict(asked_by), "before": before, "withdrawn": withdrawn}
    if not _replace(place, found, seen):
        now, _ = _read(place)
        raise InputError(
            f"{place}: {now['version'] if now else 'nobody'} has become champion meanwhile.", "Look, then try again."
        )
    return wanted


def _restore(place: str, wanted: str, asked_by: Mapping[str, str], seen: bytes | None) -> str:
    """Write `champion.json` from what the versions' decisions say, with `wanted` as champion.

    Champions that the decisions do not name before it came after it, and are withdrawn as by a rollback.
    """
    promotions = versions.champions(place)
    if wanted not in promotions:
        known = ", ".join(promotions) or "none"
        raise InputError(f"{place}: version {wanted} was never champion.", f"Those were {known}.")
    older = versions.chain(wanted, promotions)
    entries = {}
    for version in promotions:
        try:
            entries[version] = _entry_of(place, version, promotions[version])
        except InputError as error:
            if version == wanted:
                raise
            print(f"cliprd: {error.problem} The champions before are kept without it.", file=sys.stderr)
    found = {
        **entries[wanted],
        "decision": promotions[wanted].get("decision", {}),
        "rolled_back_by": dict(asked_by),
        "before": [entries[version] for version in reversed(older) if version in entries],
        "withdrawn": [
            {**entry, "by": dict(asked_by)}
            for version, entry in entries.items()
            if version != wanted and version not in older
        ],
    }
    if not _replace(place, found, seen):
        raise InputError(f"{place}: its {POINTER} was written meanwhile.", "Look, then try again.")
    return wanted


def note(place: str, params: Params, name: str, content: Mapping[str, Any]) -> None:
    """See `champion.note`."""
    storage.write_bytes(storage.join(place, f"runs/{name}.json"), _bytes(content))


def noted(place: str, params: Params, name: str) -> dict[str, Any] | None:
    """See `champion.noted`."""
    data = storage.read_bytes(storage.join(place, f"runs/{name}.json"))
    return json.loads(data) if data else None


def _read(place: str) -> tuple[dict[str, Any] | None, bytes | None]:
    """The pointer and the bytes it was read from; None where no student was promoted yet.

    Raises:
        LostPointer: it is damaged, or missing although there was a champion.
    """
    try:
        found, data = pointer.read(place)
        if found is None and (promotions := versions.champions(place)):
            # A first promotion that ends meanwhile writes the pointer, then its decision.
            found, data = pointer.read(place)
            if found is None:
                path = storage.join(place, POINTER)
                raise LostPointer(
                    f"{path} is missing, but {len(promotions)} versions beside it were promoted.", content=None
                )
        return found, data
    except LostPointer as lost:
        raise LostPointer(lost.problem, _way_back(place), content=lost.content) from lost


def _way_back(place: str) -> str:
    intact = [version for version in versions.champions(place) if _is_intact(place, version)]
    if not intact:
        return f"Put {POINTER} and the champion's folder back from a copy, or name another place in promote.champion."
    others = f" (champions before it: {', '.join(intact[1:])})" if intact[1:] else ""
    return f"Restore it: `cliprd rollback --to {intact[0]}`{others}."


def _is_intact(place: str, version: str) -> bool:
    try:
        versions.check(place, version, versions.count_benchmarks(place, version))
    except InputError:
        return False
    return True


@contextlib.contextmanager
def _writing(place: str) -> Iterator[None]:
    """Remove what killed processes have left in the place, before this one writes there."""
    if storage.is_s3(place):
        with writing(place):
            yield
        return
    root = Path(place)
    files.sweep_beside(root / POINTER)
    for folder in root.glob("*/"):
        if folder.name == "runs" or re.fullmatch(pointer.VERSION, folder.name):
            files.sweep_below(folder)
    yield


def _replace(place: str, found: Mapping[str, Any], seen: bytes | None) -> bool:
    return storage.swap(storage.join(place, POINTER), pointer.encode(found), instead_of=seen)


def _keep_decision(place: str, held: Mapping[str, Any]) -> None:
    """Write the champion's decision, where a kill came between `champion.json` and it."""
    version, decision = held["version"], held.get("decision")
    if decision and versions.read_decision(place, version) is None:
        versions.write_decision(place, version, decision, held.get("asked_by", {}))


def _held_against(place: str, held: Mapping[str, Any] | None, decision: Mapping[str, Any]) -> None:
    now = held["version"] if held else None
    if now != decision["champion"]:
        by = (held or {}).get("asked_by", {})
        told = f", asked for by {by['who']} ({by['what']})" if by else ""
        raise InputError(
            f"{place}: {now or 'nobody'} has become champion since the gate held the student against "
            f"{decision['champion'] or 'nobody'}{told}.",
            "Run the gate again.",
        )


def _put(place: str, package: Package) -> None:
    root = storage.join(place, package.version)
    names = versions.benchmark_names(len(package.benchmarks))
    for name, folder in (("student", package.student), *zip(names, package.benchmarks, strict=True)):
        target = storage.parse(storage.join(root, name))
        if not _whole(target):
            put_folder(folder, target)


def _whole(place: storage.Location) -> bool:
    try:
        manifest.verify(place)
    except InputError:
        return False
    return True


def _student(root: str) -> Path:
    folder = fetch_folder(storage.join(root, "student"))
    manifest.verify(folder, stage="distill")
    return folder


def _entry_of(place: str, version: str, promotion: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a version in the folder, checked."""
    from cliprd.promotion.champion import marks_of

    count = versions.count_benchmarks(place, version)
    folders = versions.check(place, version, count)
    asked_by = promotion.get("asked_by", {})
    return {"version": version, "marks": list(marks_of(folders[0])), "benchmarks": count, "asked_by": asked_by}


def _entry(version: str, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]) -> dict[str, Any]:
    return {
        "version": version,
        "marks": list(package.marks),
        "benchmarks": len(package.benchmarks),
        "decision": dict(decision),
        "asked_by": dict(asked_by),
    }


def _bare(held: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without what stands beside it in the pointer."""
    return {"marks": [], **{k: v for k, v in held.items() if k not in PRESENT}}


def _before(held: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return list((held or {}).get("before", ()))


def _withdrawn(held: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return list((held or {}).get("withdrawn", ()))


def _bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
