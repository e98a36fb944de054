"""A student with its benchmarks, checked to belong together: what a place of champions keeps as one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cliprd import files, lineage
from cliprd.artifact import manifest
from cliprd.errors import InputError
from cliprd.storage import Location


@dataclass(frozen=True)
class Package:
    """A student with its scores, checked.

    Attributes:
        student, benchmarks: local folders; the student's own benchmark comes first.
        fingerprint: of the student.
        scores: fingerprints of the benchmarks.
        marks: of the student (`marks_of`).
    """

    student: Path
    benchmarks: tuple[Path, ...]
    fingerprint: str
    scores: tuple[str, ...]
    marks: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of student and benchmarks together: equal for equal ones."""
        return digest(self.fingerprint, self.scores)


def digest(student: str, scores: Sequence[str]) -> str:
    """20 hexadecimal digits of the fingerprints of a student and its benchmarks, the student's own first."""
    return files.digest([student, *scores])[:20]


def benchmark_names(count: int) -> list[str]:
    """Names of the benchmarks' folders in a version, the student's own first."""
    return ["benchmark", *(f"benchmark-{number}" for number in range(1, count))]


def marks_of(benchmark: Path) -> tuple[str, ...]:
    """What a student is recognised by: its fingerprint, and the digest of its lineage where it has one.

    The latter is equal for a repetition of its training that did not give the same bytes, as on GPUs.
    """
    marks = [manifest.read(benchmark, stage="benchmark").inputs.get("model", "")]
    if (tree := lineage.load(benchmark)) is not None:
        inputs = {name: entry["fingerprint"] for name, entry in tree["inputs"].items()}
        code = {name: value for name, value in tree["code_parts"].items() if name != "benchmark"}
        marks.append(files.digest([tree["params"], inputs, code]))
    return tuple(marks)


def check(student: Location, benchmarks: Sequence[Path]) -> tuple[str, dict[Path, str]]:
    """Check a student's folder, exports included, and its benchmarks, and that they belong together.

    Args:
        student: folder of `distill`; in S3 only the sizes of its files are checked.
        benchmarks: folders of `benchmark`; the student's own is among them.

    Returns:
        The student's fingerprint; each benchmark with its fingerprint, the student's own first.

    Raises:
        InputError: a folder is missing, unfinished or damaged, or none of the benchmarks is of the student.
        RetryableError: the student is in S3, and the network or the store failed.
    """
    trained = manifest.verify(student, stage="distill").fingerprint
    scored = [(folder, manifest.verify(folder, stage="benchmark")) for folder in benchmarks]
    scored.sort(key=lambda pair: (pair[1].inputs.get("model") != trained, pair[1].fingerprint))
    if not scored or scored[0][1].inputs.get("model") != trained:
        raise InputError(
            f"None of the benchmarks ({', '.join(map(str, benchmarks))}) is of the student in {student}.",
            f"Run `cliprd benchmark --model {student}`, or give the student that was benchmarked.",
        )
    return trained, {folder: sealed.fingerprint for folder, sealed in scored}


def pack(student: Path, benchmarks: Sequence[Path]) -> Package:
    """The package of local folders. Errors as of `check`."""
    trained, scores = check(student, benchmarks)
    return Package(student, tuple(scores), trained, tuple(scores.values()), marks_of(next(iter(scores))))


def is_intact(location: Location) -> bool:
    """Whether a finished folder is there and matches its manifest."""
    try:
        manifest.verify(location)
    except InputError:
        return False
    return True
