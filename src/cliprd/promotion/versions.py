"""The versions in a champion's folder: what each is made of, what the gate said of it, and who was champion.

<version>/student, benchmark, benchmark-1 …   as their stages wrote them; their manifests give the version's name
<version>/decision.json    {"decision": the gate's, "asked_by"}; of a champion it is written after `champion.json` names
                           it, so that a promotion that was killed before leaves none. Where a champion of before was
                           refused later, "promoted" keeps the earlier content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.errors import InputError
from cliprd.promotion.pointer import VERSION
from cliprd.reading import parse_json

DECISION = "decision.json"


def benchmark_names(count: int) -> list[str]:
    """Folders of the benchmarks, the student's own first."""
    return ["benchmark", *(f"benchmark-{number}" for number in range(1, count))]


def name(student: str, scores: tuple[str, ...]) -> str:
    """Of a version: the same for the same student and benchmarks (their fingerprints, the student's own first)."""
    return files.digest([student, *scores])[:20]


def check(place: str, version: str, benchmarks: int) -> tuple[Path, ...]:
    """Check a version's files, and that they are those it was made of. Returns its benchmarks, fetched.

    Raises:
        InputError: a file is missing, damaged or another version's. RetryableError: the store failed.
    """
    root = storage.join(place, version)
    try:
        student = manifest.verify(storage.join(root, "student"), stage="distill")
        folders = tuple(fetch_folder(storage.join(root, part)) for part in benchmark_names(benchmarks))
        scores = tuple(manifest.verify(folder, stage="benchmark").fingerprint for folder in folders)
        if name(student.fingerprint, scores) != version:
            raise InputError(f"{root} holds another student or other benchmarks than version {version} was made of.")
    except InputError as error:
        raise InputError(
            error.problem, f"Put {root} back from a copy, or choose another champion: `cliprd rollback --to VERSION`."
        ) from error
    return folders


def count_benchmarks(place: str, version: str) -> int:
    """How many benchmarks a version has."""
    there = _names(storage.join(place, version))
    return sum(bool(re.fullmatch(rf"benchmark(-\d+)?/{manifest.NAME}", path)) for path in there)


def read_decision(place: str, version: str) -> dict[str, Any] | None:
    """A version's `decision.json`; None where it has none, empty where it is damaged."""
    data = storage.read_bytes(storage.join(place, f"{version}/{DECISION}"))
    if data is None:
        return None
    try:
        found = parse_json(data)
        return found if isinstance(found["decision"], dict) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def write_decision(place: str, version: str, decision: Mapping[str, Any], asked_by: Mapping[str, str]) -> None:
    """Keep what the gate said of a version; a promotion is not forgotten by a refusal that comes later."""
    known = read_decision(place, version) or {}
    content: dict[str, Any] = {"decision": dict(decision), "asked_by": dict(asked_by)}
    if not decision.get("passed") and (promotion := _promotion(known)):
        content["promoted"] = promotion
    if content != known:
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        storage.write_bytes(storage.join(place, f"{version}/{DECISION}"), text.encode())


def champions(place: str) -> dict[str, dict[str, Any]]:
    """Every version that has been champion, as far as the decisions tell → its promotion; the latest first.

    A promotion is empty where its decision is damaged, or its folder missing and known by another's decision only.
    """
    known = {version: read_decision(place, version) for version in _versions(place)}
    found: dict[str, dict[str, Any]] = {}
    for version, content in known.items():
        if content is None:
            continue
        if content == {} or _promotion(content):
            found[version] = _promotion(content)
        before = content.get("decision", {}).get("champion")
        if isinstance(before, str) and re.fullmatch(VERSION, before):
            found.setdefault(before, {})
    return dict(sorted(found.items(), key=lambda entry: (-len(chain(entry[0], found)), entry[0])))


def chain(version: str, promotions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The champions before a version, the latest first."""
    found: list[str] = []
    while True:  # a decision that was edited may lead in a circle
        before = promotions.get(version, {}).get("decision", {}).get("champion")
        if before not in promotions or before in (version, *found):
            return found
        found.append(before)
        version = before


def _promotion(content: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("decision", {}).get("passed"):
        return {"decision": content["decision"], "asked_by": content.get("asked_by", {})}
    earlier = content.get("promoted")
    return earlier if isinstance(earlier, dict) else {}


def _versions(place: str) -> list[str]:
    there = {path.partition("/")[0] for path in _names(place)}
    return sorted(version for version in there if re.fullmatch(VERSION, version))


def _names(place: str) -> list[str]:
    """Relative names of the files in a folder's subfolders (of S3: of all below it)."""
    if storage.is_s3(place):
        return sorted(storage.list_folder(place))
    return sorted(path.relative_to(place).as_posix() for path in Path(place).glob("*/*"))
