"""Where the champion lies: a folder, local or s3://, whose `champion.json` names the student that is in use.

    champion.json                    {"version": ..., "decision": {...}}; replaced last, so that it never names a part
    <version>/student/ …benchmark/   the student's folder and its scores, as their stages wrote them

This is the seam at which a registry takes over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliprd import manifest, storage
from cliprd.errors import InputError, ParamsError

POINTER = "champion.json"


@dataclass(frozen=True)
class Champion:
    """The student in use.

    Attributes:
        version: of its student's and its benchmark's manifests.
        benchmark: its scores, fetched and checked.
    """

    version: str
    benchmark: Path


def current(place: str) -> Champion | None:
    """The champion in `place`; None where none was promoted yet.

    Raises:
        InputError: the pointer is damaged, or what it names is not whole.
    """
    version = _version(place)
    if version is None:
        return None
    benchmark = storage.fetch_folder(storage.join(place, f"{version}/benchmark"))
    manifest.verify(benchmark, stage="benchmark")
    return Champion(version, benchmark)


def publish(place: str, student: Path, benchmark: Path, decision: Mapping[str, Any]) -> str:
    """Make `student` the champion; earlier ones stay where they are. Returns its version.

    Args:
        decision: of the gate; its `champion` is the version that the student was held against.

    Raises:
        ParamsError: no place is named. InputError: a folder is damaged, or there is another champion by now.
    """
    if not place:
        raise ParamsError("promote.champion names no place for a champion.", "Give an s3:// prefix.")
    prints = [manifest.verify(student, stage="distill"), manifest.verify(benchmark, stage="benchmark")]
    version = manifest.digest([found.fingerprint for found in prints])[:20]
    held = _version(place)
    if held not in (decision["champion"], version):
        raise InputError(
            f"{place}: {held} has become champion since the gate held the student against {decision['champion']}.",
            "Run the gate again.",
        )
    for name, folder in (("student", student), ("benchmark", benchmark)):
        storage.put_folder(folder, storage.join(place, f"{version}/{name}"))
    pointer = {"version": version, "decision": dict(decision)}
    storage.write_bytes(storage.join(place, POINTER), (json.dumps(pointer, indent=2, sort_keys=True) + "\n").encode())
    return version


def _version(place: str) -> str | None:
    data = storage.read_bytes(storage.join(place, POINTER))
    try:
        return None if data is None else str(json.loads(data)["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{storage.join(place, POINTER)} is damaged.", "Restore it, or promote again.") from error
