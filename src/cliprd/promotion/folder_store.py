"""A champion in a folder, local or s3://.

    champion.json              see `pointer`; replaced last and in one step, by one of several that try at once
    <version>/                 of every candidate: student, benchmark, benchmark-1 … as their stages wrote them
    <version>/decision.json    {"decision": the gate's, "asked_by"}; of a champion it is written after `champion.json`
                               names it, so a promotion that was killed before leaves none. Where a former champion was
                               refused later, "promoted" keeps the earlier content.
    runs/                      notes on runs

A version's name is the digest of its student and benchmarks.
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder, put_folder
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.promotion import package as packages
from cliprd.promotion import pointer as pointers
from cliprd.promotion.package import Package
from cliprd.promotion.store import Entry, Pointer, Promotion, chain
from cliprd.reading import parse_json
from cliprd.storage.writers import writing

POINTER, DECISION = pointers.NAME, "decision.json"


@contextlib.contextmanager
def opened(place: str, params: Params, *, write: bool) -> Iterator[FolderStore]:
    """The store of a folder; before writing, what killed processes have left is removed."""
    if not write:
        yield FolderStore(place)
        return
    if storage.is_s3(place):
        with writing(place):
            yield FolderStore(place)
        return
    files.sweep_beside(Path(place, POINTER))
    for folder in Path(place).glob("*/"):
        if folder.name == "runs" or re.fullmatch(pointers.VERSION, folder.name):
            files.sweep_below(folder)
    yield FolderStore(place)


class FolderStore:
    """See `store.Store`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.pointer = storage.join(place, POINTER)

    def read(self) -> tuple[Pointer | None, bytes | None]:
        """See `Store`."""
        if not storage.is_s3(self.pointer):
            _check_kind(Path(self.pointer))
        data = storage.read_bytes(self.pointer)
        return (None if data is None else pointers.parse(self.pointer, data)), data

    def swap(self, pointer: Pointer, instead_of: bytes | None) -> bool:
        """See `Store`."""
        return storage.swap(self.pointer, pointers.encode(pointer), instead_of=instead_of)

    def settle(self, pointer: Pointer) -> bool:
        """See `Store`: the champion's decision."""
        version, decision = pointer["version"], pointer.get("decision")
        if not decision or self.read_decision(version) is not None:
            return False
        self._write_decision(version, decision, pointer.get("asked_by", {}))
        return True

    def name(self, package: Package) -> str:
        """See `Store`."""
        return package.digest

    def put(
        self, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str], champion: Pointer | None
    ) -> str:
        """See `Store`; the decision of a promotion is kept by `settle`."""
        names = packages.benchmark_names(len(package.benchmarks))
        for name, folder in (("student", package.student), *zip(names, package.benchmarks, strict=True)):
            target = storage.parse(self._path(package.digest, name))
            if not packages.is_intact(target):
                put_folder(folder, target)
        if not decision.get("passed"):
            self._write_decision(package.digest, decision, asked_by)
        return package.digest

    def benchmarks(self, entry: Entry) -> tuple[Path, ...]:
        """See `Store`; the student is checked too, in S3 by the sizes of its files."""
        version, root = entry["version"], self._path(entry["version"])
        try:
            student = manifest.verify(self._path(version, "student"), stage="distill")
            names = packages.benchmark_names(entry.get("benchmarks", 1))
            folders = tuple(fetch_folder(self._path(version, name)) for name in names)
            scores = [manifest.verify(folder, stage="benchmark").fingerprint for folder in folders]
            if packages.digest(student.fingerprint, scores) != version:
                raise InputError(f"{root} holds another student or other benchmarks than version {version} had.")
        except InputError as error:
            raise InputError(
                error.problem,
                f"Put {root} back from a copy, or choose another champion: `cliprd rollback --to VERSION`.",
            ) from error
        return folders

    def student(self, version: str) -> Path:
        """See `Store`."""
        folder = fetch_folder(self._path(version, "student"))
        manifest.verify(folder, stage="distill")
        return folder

    def check(self, entry: Entry) -> None:
        """See `Store`."""
        self.benchmarks(entry)

    def marks(self, entry: Entry) -> list[str]:
        """See `Store`."""
        return list(entry.get("marks", ()))

    def promotions(self) -> dict[str, Promotion]:
        """See `Store`; empty where a decision is damaged, or the folder missing and known by another's decision."""
        promotions: dict[str, Promotion] = {}
        for version in sorted({name.partition("/")[0] for name in self._names()}):
            if not re.fullmatch(pointers.VERSION, version) or (content := self.read_decision(version)) is None:
                continue
            promotion = _promotion(content)
            if content == {} or promotion:
                decision = promotion.get("decision", {})
                promotions[version] = Promotion(decision.get("champion"), decision, promotion.get("asked_by", {}))
            before = content.get("decision", {}).get("champion")
            if isinstance(before, str) and re.fullmatch(pointers.VERSION, before):
                promotions.setdefault(before, Promotion())
        latest = sorted(promotions, key=lambda version: (-len(chain(version, promotions)), version))
        return {version: promotions[version] for version in latest}

    def entry(self, version: str, promotion: Promotion) -> Entry:
        """See `Store`."""
        names = self._names(version)
        count = sum(bool(re.fullmatch(rf"benchmark(-\d+)?/{manifest.NAME}", name)) for name in names)
        folders = self.benchmarks({"version": version, "benchmarks": count})
        marks = list(packages.marks_of(folders[0]))
        return {"version": version, "marks": marks, "benchmarks": count, "asked_by": promotion.asked_by}

    def note(self, name: str, content: Mapping[str, Any]) -> None:
        """See `Store`."""
        storage.write_bytes(self._path("runs", f"{name}.json"), _encoded(content))

    def noted(self, name: str) -> dict[str, Any] | None:
        """See `Store`."""
        data = storage.read_bytes(self._path("runs", f"{name}.json"))
        return json.loads(data) if data else None

    def read_decision(self, version: str) -> dict[str, Any] | None:
        """A version's `decision.json`; None where it has none, empty where it is damaged."""
        data = storage.read_bytes(self._path(version, DECISION))
        if data is None:
            return None
        try:
            content = parse_json(data)
            return content if isinstance(content["decision"], dict) else {}
        except (ValueError, KeyError, TypeError):
            return {}

    def _write_decision(self, version: str, decision: Mapping[str, Any], asked_by: Mapping[str, str]) -> None:
        """A promotion is not forgotten by a refusal that comes later."""
        known = self.read_decision(version) or {}
        content: dict[str, Any] = {"decision": dict(decision), "asked_by": dict(asked_by)}
        if not decision.get("passed") and (promotion := _promotion(known)):
            content["promoted"] = promotion
        if content != known:
            storage.write_bytes(self._path(version, DECISION), _encoded(content))

    def _path(self, *parts: str) -> str:
        return storage.join(self.place, "/".join(parts))

    def _names(self, version: str = "") -> list[str]:
        """Relative names of the files in the subfolders of the place, or of a version (in S3: of all below it)."""
        folder = self._path(version) if version else self.place
        if storage.is_s3(folder):
            return sorted(storage.list_folder(folder))
        return sorted(path.relative_to(folder).as_posix() for path in Path(folder).glob("*/*"))


def _check_kind(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check promote.champion.") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
        raise InputError(
            f"{path} is {kind} where cliprd keeps a file that it replaces.",
            "Move it away, and put the file itself there or restore it with `cliprd rollback --to VERSION`.",
        )


def _promotion(content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a `decision.json` that records a promotion; empty where it records none."""
    if content.get("decision", {}).get("passed"):
        return {"decision": content["decision"], "asked_by": content.get("asked_by", {})}
    earlier = content.get("promoted")
    return earlier if isinstance(earlier, dict) else {}


def _encoded(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
