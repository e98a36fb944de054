"""Opens the folders of a comparison: one benchmark and one student a run, checked by their manifests.

Their formats are described in docs/formats.md.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.manifest import VOLATILE_DIR, Manifest
from cliprd.errors import InputError
from cliprd.files import digest, sha256_file
from cliprd.reading import read_json
from cliprd.report.results import TEACHER
from cliprd.report.timings import SPEED, THROUGHPUT, intact
from cliprd.storage import Location


@dataclass(frozen=True)
class Run:
    """A benchmark folder and its student's folder (None for the teacher)."""

    name: str
    folder: Path
    manifest: Manifest
    student: Path | None = None
    student_manifest: Manifest | None = None

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        return dict(read_json(self.folder / "results.json"))

    def tensors(self, kind: str, task: str) -> dict[str, np.ndarray[Any, Any]]:
        """`outcomes` or `embeddings` of a task."""
        return dict(load_file(self.folder / kind / f"{task}.safetensors"))

    def examples(self, task: str) -> dict[str, Any]:
        """The content of examples/<task>.json."""
        return dict(read_json(self.folder / "examples" / f"{task}.json"))

    def picture(self, examples: Mapping[str, Any], image: int) -> Image.Image:
        """A picture of a task's `examples`."""
        stored = examples["pictures"][str(image)]
        in_a_file = stored.startswith("examples/")  # until 0.1
        data = (self.folder / stored).read_bytes() if in_a_file else base64.b64decode(stored)
        return Image.open(io.BytesIO(data))

    def volatile(self, name: str) -> Path | None:
        """A timing file of the benchmark (`speed.json`) or the student (`throughput.csv`); None if it is missing or
        damaged, which is reported (`report.timings`)."""
        path = self._volatile(name)
        return intact(path) if path else None

    def damaged(self, name: str) -> bool:
        """Whether `volatile` leaves out a damaged file of that name."""
        path = self._volatile(name)
        return path is not None and os.path.lexists(path) and intact(path) is None

    def _volatile(self, name: str) -> Path | None:
        folder = self.student if name == THROUGHPUT else self.folder
        return folder / VOLATILE_DIR / name if folder else None


@dataclass(frozen=True)
class Grid:
    """All runs of the comparison: the teacher, and method → runs in the order of the seeds."""

    teacher: Run
    methods: Mapping[str, Sequence[Run]]
    seeds: tuple[int, ...]

    @property
    def runs(self) -> list[Run]:
        """Every run, the teacher first."""
        return [self.teacher, *(run for runs in self.methods.values() for run in runs)]

    def first(self, model: str) -> Run:
        """The run of the first seed (or the teacher), whose examples are shown."""
        return self.teacher if model == TEACHER else self.methods[model][0]


def open_grid(methods: Sequence[str], seeds: Sequence[int], benchmarks: Location, students: Location) -> Grid:
    """Open methods × seeds and the teacher; other runs in the folders are ignored.

    Raises:
        InputError: a run is missing, damaged or of another training, or its benchmark is of another student.
    """
    where = storage.join(benchmarks, TEACHER)
    teacher = _folder(where)
    if teacher is None:
        raise InputError(
            f"{where} does not exist: the teacher was not benchmarked.",
            f"Run `cliprd benchmark --model work/teacher --output {where}` (or `dvc repro`).",
        )
    runs = {method: [_open_run(method, seed, benchmarks, students) for seed in seeds] for method in methods}
    return Grid(Run(TEACHER, teacher, manifest.verify(teacher, stage="benchmark")), runs, tuple(seeds))


def _folder(where: str) -> Path | None:
    """A run's folder, downloaded from S3 if needed; None if there is none."""
    exists = storage.list_folder(where) if storage.is_s3(where) else Path(where).is_dir()
    return fetch_folder(where) if exists else None


def _open_run(method: str, seed: int, benchmarks: Location, students: Location) -> Run:
    name = f"{method}-{seed}"
    student_at, benchmark_at = storage.join(students, name), storage.join(benchmarks, name)
    student, benchmark = _folder(student_at), _folder(benchmark_at)
    if student is None:
        raise InputError(
            f"{student_at} does not exist: ablation.methods × ablation.seeds includes {name}, which was not trained.",
            f"Run `dvc repro`, or `cliprd distill --shards work/shards --cache work/cache --method {method} "
            f"--seed {seed} --output {student_at}`.",
        )
    if benchmark is None:
        raise InputError(
            f"{benchmark_at} does not exist: the run {name} was trained but not benchmarked.",
            f"Run `dvc repro`, or `cliprd benchmark --model {student_at} "
            f"--reference {storage.join(benchmarks, TEACHER)} --output {benchmark_at}`.",
        )
    opened = manifest.verify(benchmark, stage="benchmark")
    trained = manifest.verify(student, stage="distill")
    if (actual := trained.facts.get("run", name)) != name:  # one training under two names would count as two seeds
        raise InputError(
            f"{student_at} has the training {actual}, not {name}.",
            f"Rename it to {actual}, and train {name} with `cliprd distill`.",
        )
    if opened.inputs.get("model", trained.fingerprint) != trained.fingerprint:
        raise InputError(
            f"{benchmark_at} is of another student than the one in {student_at}.",
            f"Run `dvc repro`, or `cliprd benchmark --model {student_at} --output {benchmark_at}` again.",
        )
    return Run(name, benchmark, opened, student, trained)


def timings(grid: Grid) -> str:
    """Digest of all timings, which no manifest covers."""
    files = [run.volatile(name) for run in grid.runs for name in (SPEED, THROUGHPUT)]
    return digest([sha256_file(path) if path else None for path in files])


def check_alike(grid: Grid) -> None:
    """Check that tasks, data, protocols and bootstrap settings are equal, as paired comparisons need.

    Raises:
        InputError: a run differs; the message names it and the difference.
    """
    expected = _signature(grid.teacher.results)
    if not expected["tasks"]:
        raise InputError(f"{grid.teacher.folder} has no task.", "Check benchmark.tasks and benchmark.names.")
    for run in grid.runs:
        for key, value in _signature(run.results).items():
            if value != expected[key]:
                raise InputError(
                    f"{run.folder} was benchmarked with other {key} than {grid.teacher.folder}: "
                    f"{value} against {expected[key]}.",
                    "Run `dvc repro`, so that all models are benchmarked alike.",
                )


def _signature(results: Mapping[str, Any]) -> dict[str, Any]:
    tasks = results["tasks"]
    return {
        "tasks": sorted(tasks),
        "data": {name: tasks[name]["fingerprint"] for name in sorted(tasks)},
        "protocols": {name: sorted(tasks[name]["protocols"]) for name in sorted(tasks)},
        "bootstrap settings": results["bootstrap"],
    }
