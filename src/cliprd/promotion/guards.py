"""Guarded figures of the gate: a candidate that is better in the mean must not be much worse in any other figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cliprd.params import Margins
from cliprd.reading import read_json
from cliprd.report.runs import Run
from cliprd.statistics import aggregate
from cliprd.statistics.bootstrap import Settings

FIDELITY = "cross_rank"  # defined whatever the widths, and nearest to what zero-shot scores are made of
COSTS = ("parameters", "image_macs", "text_macs")


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A guarded figure, candidate against champion.

    Attributes:
        name: what is guarded, such as a task's name or `parameters`.
        kind: `tasks`, `fidelity`, `latency` or `size`, as in `promote.margins`.
        value, low, high: candidate − champion with its interval (tasks, fidelity), or the share by which it is more
            (latency, size; without an interval). None where it is not known.
        margin: by how much it may be worse, in the same unit.
        ok: whether it is not worse by more; None where that is not known, which `note` explains and refuses nothing.
        note: a remark for the report.
    """

    name: str
    kind: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float
    ok: bool | None
    note: str = ""


def not_worse(name: str, kind: str, difference: Mapping[str, float], margin: float) -> Guard:
    """A score whose interval must end above −margin."""
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    return Guard(name=name, kind=kind, value=value, low=low, high=high, margin=margin, ok=low > -margin)


def not_more(name: str, kind: str, candidate: float, champion: float, margin: float) -> Guard:
    """A cost that may be more than the champion's by the share `margin`."""
    if not champion > 0:
        return unknown(name, kind, margin, "the champion's is not positive")
    share = round(candidate / champion - 1, 6)
    return Guard(name=name, kind=kind, value=share, margin=margin, ok=share <= margin)


def unknown(name: str, kind: str, margin: float, why: str) -> Guard:
    """A guard without figures; it refuses nothing."""
    return Guard(name=name, kind=kind, margin=margin, ok=None, note=why)


def guards(
    candidates: Sequence[Run],
    reigning: Sequence[Run],
    tasks: Mapping[str, Mapping[str, float]],
    margins: Margins,
    settings: Settings,
) -> list[Guard]:
    """Every guarded figure of two sides of a comparison.

    Args:
        candidates, reigning: benchmarks of candidate and champion, one a seed.
        tasks: task → its difference.
        margins: by how much each kind may be worse.
        settings: of the intervals.
    """
    guarded: list[Guard] = []
    if margins.tasks != "none":
        guarded += [not_worse(name, "tasks", task, margins.tasks / 100) for name, task in tasks.items()]
    if margins.fidelity != "none":
        guarded.append(_fidelity(candidates, reigning, sorted(tasks), margins.fidelity, settings))
    if margins.latency != "none":
        guarded += [_latency(tower, candidates, reigning, margins.latency) for tower in ("image", "text")]
    if margins.size != "none":
        ours, theirs = candidates[0].results["cost"], reigning[0].results["cost"]
        guarded += [not_more(name, "size", ours[name], theirs[name], margins.size) for name in COSTS]
    return guarded


def _fidelity(
    candidates: Sequence[Run], reigning: Sequence[Run], tasks: Sequence[str], margin: float, settings: Settings
) -> Guard:
    """Mean over the tasks on which both were compared with one teacher."""
    name, kind = FIDELITY, "fidelity"
    teachers = {(run.results.get("reference") or {}).get("weights_sha256") for run in (*candidates, *reigning)}
    if len(teachers) > 1 and None not in teachers:
        return unknown(name, kind, margin, "candidate and champion have different teachers")

    def values(runs: Sequence[Run]) -> dict[str, Any]:
        tensors = {task: [run.tensors("outcomes", task) for run in runs] for task in tasks}
        return {
            task: np.stack([seed[f"fidelity.{name}"].astype(np.float64) for seed in seeds])
            for task, seeds in tensors.items()
            if all(f"fidelity.{name}" in seed for seed in seeds)
        }

    ours, theirs = values(candidates), values(reigning)
    if not theirs:
        return unknown(name, kind, margin, "the champion was not compared with its teacher")
    if absent := sorted(set(theirs) - set(ours)):
        why = f"the candidate was not compared with the teacher on {', '.join(absent)}, as the champion was"
        return Guard(name=name, kind=kind, margin=margin, ok=False, note=why)
    common = {task: rows for task, rows in ours.items() if task in theirs}
    if any(common[task].shape[1] != theirs[task].shape[1] for task in common):
        return unknown(name, kind, margin, "it was measured over other examples (benchmark.fidelity_samples)")
    difference = aggregate.differences(common, theirs, settings, most=2.0)["mean"]  # of correlations
    return not_worse(name, kind, difference, margin)


def _latency(tower: str, candidates: Sequence[Run], reigning: Sequence[Run], margin: float) -> Guard:
    sides = []
    for runs in (candidates, reigning):
        if damaged := [run.name for run in runs if run.damaged("speed.json")]:
            return unknown(tower, "latency", margin, f"the timings of the {damaged[0]} are damaged")
        paths = [path for run in runs if (path := run.volatile("speed.json"))]
        if not paths:
            return unknown(tower, "latency", margin, f"the {runs[0].name} was not timed")
        sides.append([read_json(path) for path in paths])
    machines = {(timed["device"], timed["threads"]) for timed in (*sides[0], *sides[1])}
    if len(machines) > 1:
        return unknown(tower, "latency", margin, "they were timed on different machines")
    if candidates[0].results["cost"] == reigning[0].results["cost"]:
        why = "both have the same parameters and operations, so a difference would be the machine's"
        return unknown(tower, "latency", margin, why)
    ours, theirs = (statistics.median(timed[tower]["latency_ms"]["median"] for timed in side) for side in sides)
    return not_more(tower, "latency", ours, theirs, margin)
