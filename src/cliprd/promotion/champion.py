"""The champion, the student that is in use, wherever `promote.champion` keeps it.

`models:/<name>` is MLflow's registry at `tracking.uri` (`registry`), anything else a folder here or in S3
(`champion_folder`). Both keep every candidate with what the gate said of it, who asked and for what; the champion is
replaced in one step, by one of several that try at once; and the way back to earlier champions is kept.
"""

from __future__ import annotations

import getpass
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from cliprd import files, lineage
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError
from cliprd.params import Params
from cliprd.promotion import versions
from cliprd.storage import Location

REGISTRY = "models:/"


@dataclass(frozen=True)
class Champion:
    """The student in use.

    Attributes:
        version: the registry's number, or a digest of the manifests.
        benchmarks: its scores, fetched and checked; the student's own first, then those of its recipe's other seeds.
        lineage: what its `lineage.json` says, where there is one.
        student: brings the student's folder here, checked; may take long.
        withdrawn: marks (`marks_of`) of students that a rollback has taken out of use.
    """

    version: str
    benchmarks: tuple[Path, ...]
    lineage: dict[str, Any] | None
    student: Callable[[], Path] = field(repr=False)
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A student with its scores, checked.

    Attributes:
        student, benchmarks: folders here; the student's own benchmark comes first.
        fingerprint: of the student. scores: fingerprints of the benchmarks.
        marks: of the student.
    """

    student: Path
    benchmarks: tuple[Path, ...]
    fingerprint: str
    scores: tuple[str, ...]
    marks: tuple[str, ...]

    @property
    def version(self) -> str:
        """Of student and benchmarks together: the same for the same."""
        return versions.name(self.fingerprint, self.scores)


def current(place: str, params: Params) -> Champion | None:
    """The champion in `place`; None where none was promoted yet.

    Raises:
        InputError: it is damaged. RetryableError: a store or server failed.
    """
    found: Champion | None = _backend(place).current(place, params)
    return found


def publish(
    place: str,
    params: Params,
    student: Path,
    benchmarks: Sequence[Path],
    decision: Mapping[str, Any],
    asked_by: Mapping[str, str],
) -> str:
    """Make `student` the champion; earlier ones stay where they are. The same once more changes nothing.

    Args:
        place: of the champion.
        params: `tracking.uri` and `promote` are used.
        student: folder of `distill`.
        benchmarks: folders of `benchmark`; the student's own is among them, others are of its recipe's further seeds.
        decision: of the gate. Its `champion` is the version that the candidate was held against.
        asked_by: `{"who", "what"}`.

    Returns:
        The student's version.

    Raises:
        ParamsError: no place is named.
        InputError: a folder is damaged, the decision is none for these folders or a refusal, or another student has
            become champion meanwhile, who is named.
        RetryableError: a store or server failed; the champion is as before, or the new one, and never a part.
    """
    _named(place)
    package = _package(student, benchmarks)
    if not decision.get("passed"):
        raise InputError(f"The gate refused: {decision.get('reason', 'no reason given')}.", "Nothing was promoted.")
    if sorted(decision.get("candidate", package.scores)) != sorted(package.scores):
        raise InputError("The gate's decision is of other benchmarks than these.", "Run the gate on them.")
    version: str = _backend(place).publish(place, params, package, decision, asked_by)
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
    _named(place)
    package = _package(student, benchmarks)
    version: str = _backend(place).refuse(place, params, package, decision, asked_by)
    return version


def rollback(place: str, params: Params, asked_by: Mapping[str, str], to: str | None = None) -> str:
    """Bring the champion before this one back, or version `to`; the one that goes is not promoted again by the gate.

    Returns:
        The version that is champion now.

    Raises:
        InputError: there is none before, no such version, or another champion by now.
        ParamsError: no place is named, or `to` is empty. RetryableError: as of `publish`.
    """
    _named(place)
    if to is not None and not to.strip():
        raise ParamsError("--to is empty.", "Give a version, or leave it out for the champion before this one.")
    version: str = _backend(place).rollback(place, params, asked_by, to)
    return version


def tidy(place: str, params: Params) -> None:
    """Finish what a promotion has left that was killed behind the step that counts; remove leftovers of killed ones."""
    _named(place)
    _backend(place).tidy(place, params)


def note(place: str, params: Params, name: str, content: Mapping[str, Any]) -> None:
    """Keep a small note on a run beside the champion, under a name such as `<run>/gate`."""
    _backend(place).note(place, params, name, content)


def noted(place: str, params: Params, name: str) -> dict[str, Any] | None:
    """What `note` has kept; None where it has nothing."""
    found: dict[str, Any] | None = _backend(place).noted(place, params, name)
    return found


def marks_of(benchmark: Path) -> tuple[str, ...]:
    """What a student is recognised by: its fingerprint, and where it has a lineage, what it was made of and with.

    The latter is the same of a repetition of its training that did not give the same bytes, as on GPUs.
    """
    marks = [manifest.read(benchmark, stage="benchmark").inputs.get("model", "")]
    if (tree := lineage.load(benchmark)) is not None:
        inputs = {name: entry["fingerprint"] for name, entry in tree["inputs"].items()}
        code = {name: value for name, value in tree["code_parts"].items() if name != "benchmark"}
        marks.append(files.digest([tree["params"], inputs, code]))
    return tuple(marks)


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


def check_candidate(student: Location, benchmarks: Sequence[Path]) -> None:
    """Check a student's folder, exports included, and its benchmarks, and that they belong together.

    Args:
        student: folder of `distill`; of one in S3 the sizes of its files are checked.
        benchmarks: folders of `benchmark`; the student's own is among them.

    Raises:
        InputError: one is missing, unfinished or damaged, or none of the benchmarks is of the student.
        RetryableError: the student is in S3, and the network or the store failed.
    """
    _belonging(student, benchmarks)


def _package(student: Path, benchmarks: Sequence[Path]) -> Package:
    trained, found = _belonging(student, benchmarks)
    return Package(
        student=student,
        benchmarks=tuple(folder for folder, _ in found),
        fingerprint=trained,
        scores=tuple(fingerprint for _, fingerprint in found),
        marks=marks_of(found[0][0]),
    )


def _belonging(student: Location, benchmarks: Sequence[Path]) -> tuple[str, list[tuple[Path, str]]]:
    """The student's fingerprint, and each benchmark with its own; the student's comes first."""
    trained = manifest.verify(student, stage="distill").fingerprint
    found = [(folder, manifest.verify(folder, stage="benchmark")) for folder in benchmarks]
    found.sort(key=lambda pair: (pair[1].inputs.get("model") != trained, pair[1].fingerprint))
    if not found or found[0][1].inputs.get("model") != trained:
        raise InputError(
            f"None of the benchmarks ({', '.join(map(str, benchmarks))}) is of the student in {student}.",
            f"Run `cliprd benchmark --model {student}`, or give the student that was benchmarked.",
        )
    return trained, [(folder, scored.fingerprint) for folder, scored in found]


def _named(place: str) -> None:
    if not place:
        raise ParamsError(
            "promote.champion names no place for a champion.", "Give models:/<name>, a folder or an s3:// prefix."
        )


def _backend(place: str) -> ModuleType:
    name = "registry" if place.startswith(REGISTRY) else "folder_store"
    return importlib.import_module(f"cliprd.promotion.{name}")
