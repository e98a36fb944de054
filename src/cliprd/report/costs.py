"""What models cost: counts of parameters and operations, sizes of files, and timings.

Counts depend on the architecture alone. Timings of students of one architecture differ only by noise of the machine, so
a speed is given per architecture, from all rounds of all its runs: the median, with the slowest and fastest round as
range. Timings with another machine, number of threads or batch size than the teacher's are not comparable and left out.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from cliprd import files
from cliprd.reading import read_json
from cliprd.report.results import TEACHER, Cost, Measured
from cliprd.report.runs import Grid, Run

WEIGHTS, ONNX = "open_clip_model.safetensors", ("image.onnx", "text.onnx")


def gather_costs(grid: Grid) -> dict[str, Cost]:
    """Model → its cost, the teacher first; students of one architecture share timings."""
    models = {TEACHER: [grid.teacher], **grid.methods}
    setting = _setting(_speed(grid.teacher)) or next(filter(None, map(_setting, map(_speed, grid.runs))), None)
    timings: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in grid.runs:
        if (speed := _speed(run)) and _setting(speed) == setting:
            timings[_architecture(run)].append(speed)
    return {model: _cost(list(runs), timings[_architecture(runs[0])]) for model, runs in models.items()}


def device(grid: Grid) -> str:
    """The device of the shown timings; empty if there are none."""
    for run in grid.runs:
        if (setting := _setting(_speed(run))) is not None:
            name, threads, precision, _ = setting
            return f"{name}, {threads} thread{'s' if threads != 1 else ''}, {precision}"
    return ""


def _cost(runs: list[Run], timings: list[Mapping[str, Any]]) -> Cost:
    counts = runs[0].results["cost"]
    files = runs[0].student_manifest.files if runs[0].student_manifest else {}
    sizes = {name: int(files[name]["size"]) for name in (WEIGHTS, *ONNX) if name in files}
    throughputs = [_throughput(run) for run in runs]
    return Cost(
        architecture=_architecture(runs[0]),
        parameters=counts["parameters"],
        image_macs=counts.get("image_macs"),
        text_macs=counts.get("text_macs"),
        weights_bytes=sizes.get(WEIGHTS),
        onnx_bytes=sum(sizes[name] for name in ONNX) if set(ONNX) <= set(sizes) else None,
        images_per_second=_pooled(timings, "image", "per_second"),
        texts_per_second=_pooled(timings, "text", "per_second"),
        latency_ms=_pooled(timings, "image", "latency_ms"),
        training_images_per_second=measured(
            statistics.median(pace for _, pace in rows)
            for rows in throughputs
            if rows  # a median, as the first records are slow
        ),
        training_seconds=measured(seconds for run in runs if (seconds := _seconds(run)) is not None),
    )


def measured(values: Iterable[float]) -> Measured | None:
    """Median, lowest and highest; None for no values."""
    valid = sorted(value for value in values if math.isfinite(value) and value > 0)
    return Measured(value=statistics.median(valid), low=valid[0], high=valid[-1], count=len(valid)) if valid else None


def _architecture(run: Run) -> str:
    """Equal for models with equal counts, shapes and configuration."""
    model = run.results["model"]
    student = (run.student_manifest.params.get("student") or {}) if run.student_manifest else {}
    shape = [model.get("stage"), model.get("dim"), model.get("image"), model.get("tokenizer")]
    return files.digest([run.results["cost"], shape, student.get("arch"), student.get("config")])


def _speed(run: Run) -> Mapping[str, Any]:
    path = run.volatile("speed.json")
    return read_json(path) if path else {}


def _setting(speed: Mapping[str, Any]) -> tuple[str, int, str, int | None] | None:
    """The values that comparable timings share."""
    if not speed:
        return None
    return speed["device"], speed["threads"], speed["precision"], (speed.get("image") or {}).get("batch_size")


def _pooled(timings: list[Mapping[str, Any]], tower: str, quantity: str) -> Measured | None:
    values: list[float] = []
    for speed in timings:
        entry = speed.get(tower) or {}
        total = entry.get(quantity)
        median = total.get("median") if isinstance(total, Mapping) else total
        values += entry.get("rounds", {}).get(quantity) or ([median] if median else [])  # older files have no rounds
    return measured(values)


def _throughput(run: Run) -> list[tuple[int, float]]:
    """(step, images per second since the last one) of a training's records."""
    path = run.volatile("throughput.csv")
    if path is None:
        return []
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    records = [(int(row["step"]), float(row["images_per_second"] or "nan")) for row in rows]
    return [(step, pace) for step, pace in records if math.isfinite(pace) and pace > 0]


def _seconds(run: Run) -> float | None:
    """Duration of a training's steps, from its throughput; without start-up, export and time lost by kills."""
    batch = (run.student_manifest.params.get("distill") or {}).get("batch_size") if run.student_manifest else None
    rows = _throughput(run)
    if not batch or not rows:
        return None
    steps = [0, *(step for step, _ in rows)]
    return sum((step - before) * float(batch) / pace for before, (step, pace) in zip(steps, rows, strict=False))
