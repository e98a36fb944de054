"""A champion in a folder, local or s3://, whose `champion.json` names the student that is in use.

    champion.json     {"version", "decision", "asked_by", "benchmarks": how many, "before": [entries, oldest first],
                       "withdrawn": [entries, "by" whom]}; replaced last and as a whole
    <version>/        student/, benchmark/, benchmark-1/ … as their stages wrote them; decision.json, what the gate said
    runs/             notes on runs

`champion.json` is only replaced by who has seen its present content (`storage.swap`), so of two at once one wins.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprd import manifest, storage
from cliprd.errors import InputError
from cliprd.params import Params

if TYPE_CHECKING:
    from cliprd.tracking.champion import Champion, Package

POINTER = "champion.json"
PRESENT = ("before", "withdrawn", "rolled_back_by", "decision")  # of the champion alone, not of those before it


def current(place: str, params: Params) -> Champion | None:
    """See `champion.current`."""
    from cliprd.tracking.champion import Champion

    held, _ = _read(place)
    if held is None:
        return None
    root = storage.join(place, held["version"])
    benchmarks = tuple(storage.fetch_folder(storage.join(root, name)) for name in _names(held.get("benchmarks", 1)))
    for folder in benchmarks:
        manifest.verify(folder, stage="benchmark")
    lineage = benchmarks[0] / "lineage.json"
    return Champion(
        version=held["version"],
        benchmarks=benchmarks,
        lineage=json.loads(lineage.read_text(encoding="utf-8")) if lineage.is_file() else None,
        student=functools.partial(_student, root),
        withdrawn=tuple(
            mark for entry in _withdrawn(held) for mark in entry["marks"] if mark not in held.get("marks", ())
        ),
    )


def publish(
    place: str, params: Params, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]
) -> str:
    """See `champion.publish`."""
    held, seen = _read(place)
    version = package.version
    if held is not None and held["version"] == version:
        return version
    _held_against(place, held, decision)
    _put(place, package, decision, asked_by)
    found = {
        **_entry(version, package, decision, asked_by),
        "before": [*_before(held), *([_bare(held)] if held else [])],
        "withdrawn": [entry for entry in _withdrawn(held) if entry["version"] != version],
    }
    if not storage.swap(storage.join(place, POINTER), _bytes(found), instead_of=seen):
        now, _ = _read(place)
        if now is None or now["version"] != version:  # else: the same promotion, twice at once
            _held_against(place, now, decision)
            raise InputError(f"{place}: its champion was changed at the same time.", "Run the gate again.")
    return version


def refuse(
    place: str, params: Params, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]
) -> str:
    """See `champion.refuse`."""
    held, _ = _read(place)
    if held is None or held["version"] != package.version:
        _put(place, package, decision, asked_by)
    return package.version


def rollback(place: str, params: Params, asked_by: Mapping[str, str], to: str | None) -> str:
    """See `champion.rollback`."""
    held, seen = _read(place)
    if held is None:
        raise InputError(f"{place} has no champion.", "There is nothing to roll back.")
    before, withdrawn = _before(held), _withdrawn(held)
    known = {entry["version"]: entry for entry in (*withdrawn, *before)}
    if to is None and not before:
        raise InputError(f"{place}: {held['version']} is the first champion.", "There is none before it.")
    wanted = to or before[-1]["version"]
    if wanted == held["version"]:
        return wanted
    if wanted not in known:
        raise InputError(f"{place}: version {wanted} was never champion.", f"Those were {', '.join(known) or 'none'}.")
    older = [entry["version"] for entry in before]
    going = [_bare(held)]
    if wanted in older:
        place_of = older.index(wanted)
        going, before = [*before[place_of + 1 :], *going], before[:place_of]
        withdrawn = [*withdrawn, *({**entry, "by": dict(asked_by)} for entry in going)]
    else:  # one that was taken out of use comes back; the present champion is the one before it
        before = [*before, *going]
        withdrawn = [entry for entry in withdrawn if entry["version"] != wanted]
    manifest.verify(_student(storage.join(place, wanted)), stage="distill")
    again = {key: value for key, value in known[wanted].items() if key != "by"}
    found = {**again, "rolled_back_by": dict(asked_by), "before": before, "withdrawn": withdrawn}
    if not storage.swap(storage.join(place, POINTER), _bytes(found), instead_of=seen):
        now, _ = _read(place)
        raise InputError(
            f"{place}: {now['version'] if now else 'nobody'} has become champion meanwhile.", "Look, then try again."
        )
    return wanted


def note(place: str, params: Params, name: str, content: Mapping[str, Any]) -> None:
    """See `champion.note`."""
    storage.write_bytes(storage.join(place, f"runs/{name}.json"), _bytes(content))


def noted(place: str, params: Params, name: str) -> dict[str, Any] | None:
    """See `champion.noted`."""
    data = storage.read_bytes(storage.join(place, f"runs/{name}.json"))
    return json.loads(data) if data else None


def _read(place: str) -> tuple[dict[str, Any] | None, bytes | None]:
    """The pointer, and the bytes it was read from."""
    data = storage.read_bytes(storage.join(place, POINTER))
    if data is None:
        return None, None
    try:
        found = json.loads(data)
        found["version"] = str(found["version"])
        return found, data
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{storage.join(place, POINTER)} is damaged.", "Restore it, or remove it.") from error


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


def _put(place: str, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str]) -> None:
    root = storage.join(place, package.version)
    names = _names(len(package.benchmarks))
    for name, folder in (("student", package.student), *zip(names, package.benchmarks, strict=True)):
        target = storage.parse(storage.join(root, name))
        if not _whole(target):
            storage.put_folder(folder, target)
    told = {"decision": dict(decision), "asked_by": dict(asked_by)}
    storage.write_bytes(storage.join(root, "decision.json"), _bytes(told))


def _whole(place: storage.Location) -> bool:
    try:
        manifest.verify(place)
    except InputError:
        return False
    return True


def _student(root: str) -> Path:
    folder = storage.fetch_folder(storage.join(root, "student"))
    manifest.verify(folder, stage="distill")
    return folder


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


def _names(count: int) -> list[str]:
    return ["benchmark", *(f"benchmark-{number}" for number in range(1, count))]


def _bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
