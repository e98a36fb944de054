"""Scores, paired differences and ratios, with intervals, from outcomes per example; over tasks and seeds.

The examples of every task are resampled (`bootstrap.resample`), the same ones for every model, so the difficulty of
examples cancels in a difference. Tasks are not resampled: an interval holds for these tasks.

With several seeds, the interval is about the *recipe*, so it includes training noise. Resampling three seeds would give
far too narrow intervals. Instead, noise from Student's t is added, with the standard deviation of the seeds' means
pooled over both sides of a difference and one degree of freedom fewer a side than seeds. A side with one seed uses the
other side's spread. With one seed a side, or if the seeds' means are all equal, training noise is unknown: the interval
covers the examples only and is about *these trainings*.

If fewer than `fewest` examples differ, a difference may be chance whatever the resamples show, so the interval is
extended to include zero (six at 0.95, the smallest number at which a sign test can be significant).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cliprd.statistics.bootstrap import Array, Settings, interval, resample, rounded

Side = Mapping[str, Array]  # task → [seeds, examples]
Key = TypeVar("Key", bound=Hashable)

EXAMPLES, SEEDS = "examples", "examples and seeds"  # what an interval covers


@dataclass(frozen=True)
class Draws:
    """A score or a difference: the estimate and its resamples, per task and for the mean over tasks.

    Attributes:
        value: task → estimate; the key None is the unweighted mean over tasks.
        resampled: the same keys → `[resamples]`, training noise included.
        differing: the same keys → examples whose outcome is not zero.
        covers: `EXAMPLES`, or `SEEDS` if training noise is included.
    """

    value: Mapping[str | None, float]
    resampled: Mapping[str | None, Array]
    differing: Mapping[str | None, int]
    covers: str


def draw(quantities: Mapping[Key, Sequence[Side]], settings: Settings) -> dict[Key, Draws]:
    """Resample all quantities together.

    Args:
        quantities: each has one side (its score) or two (the difference first − second). All have the same tasks, with
            the same examples in the same order.
        settings: of the resampling.
    """
    tasks = list(next(iter(quantities.values()))[0])
    value: dict[Key, dict[str | None, float]] = {name: {} for name in quantities}
    resampled: dict[Key, dict[str | None, Array]] = {name: {} for name in quantities}
    differing: dict[Key, dict[str | None, int]] = {name: {} for name in quantities}
    for task in tasks:
        rows = np.stack([_row([side[task] for side in sides]) for sides in quantities.values()])
        for name, row, drawn in zip(quantities, rows, resample(task, rows, settings), strict=True):
            value[name][task], resampled[name][task] = float(row.mean()), drawn
            differing[name][task] = int(np.count_nonzero(np.abs(row) > 1e-12))
    draws_of = {}
    for name, sides in quantities.items():
        value[name][None] = float(np.mean([value[name][task] for task in tasks]))
        resampled[name][None] = np.mean([resampled[name][task] for task in tasks], axis=0)
        differing[name][None] = sum(differing[name][task] for task in tasks)
        noise = _training_noise(sides, settings)
        for key, draws in noise.items():
            resampled[name][key] = resampled[name][key] + draws
        covers = SEEDS if noise and noise[None].any() else EXAMPLES
        draws_of[name] = Draws(value[name], resampled[name], differing[name], covers)
    return draws_of


def _row(sides: Sequence[Array]) -> Array:
    """`[examples]`: mean over seeds, or difference of two means. Divides last, so that counts of hits are exact."""
    first = sides[0].sum(axis=0) / len(sides[0])
    if len(sides) == 1:
        return np.asarray(first)
    ours, theirs = sides
    if len(ours) == len(theirs):
        return np.asarray((ours.sum(axis=0) - theirs.sum(axis=0)) / len(ours))
    return np.asarray(first - theirs.sum(axis=0) / len(theirs))


def _training_noise(sides: Sequence[Side], settings: Settings) -> dict[str | None, Array]:
    """Resampled error due to the training seeds, per task and for the mean over tasks; empty with one seed a side.

    The draws are equally spaced quantiles of Student's t, in random order.
    """
    means: list[dict[str | None, Array]] = [{task: rows.mean(axis=1) for task, rows in side.items()} for side in sides]
    for side in means:
        side[None] = np.mean(list(side.values()), axis=0)
    counts = [len(side[None]) for side in means]
    freedom = sum(counts) - len(counts)
    if freedom == 0:
        return {}
    from scipy.special import stdtrit  # slow to import (0.2 s)

    generator = np.random.default_rng((settings.seed, freedom))
    student = generator.permutation(stdtrit(freedom, (np.arange(settings.resamples) + 0.5) / settings.resamples))
    scale = math.sqrt(sum(1 / count for count in counts) / freedom)
    squares = {key: sum(float(((side[key] - side[key].mean()) ** 2).sum()) for side in means) for key in means[0]}
    return {key: student * scale * math.sqrt(square if square > 1e-24 else 0.0) for key, square in squares.items()}


def score(draws: Draws, settings: Settings) -> dict[str, Any]:
    """`{"mean": interval, "tasks": {task: interval}}` of one model, clipped to 0 to 1."""
    intervals = {key: interval(value, draws.resampled[key], settings) for key, value in draws.value.items()}
    return _by_task({k: {**i, "low": max(0.0, i["low"]), "high": min(1.0, i["high"])} for k, i in intervals.items()})


def difference(draws: Draws, settings: Settings, *, most: float = 1.0) -> dict[str, Any]:
    """`{"mean": interval, "tasks": {task: interval}, "covers"}` of a paired difference, clipped to ±`most`."""
    needed = fewest(settings)
    intervals: dict[str | None, dict[str, float]] = {}
    for key, value in draws.value.items():
        intervals[key] = interval(value, draws.resampled[key], settings)
        if draws.differing[key] < needed:
            intervals[key] |= {"low": min(0.0, intervals[key]["low"]), "high": max(0.0, intervals[key]["high"])}
        intervals[key] |= {"low": max(-most, intervals[key]["low"]), "high": min(most, intervals[key]["high"])}
    return {**_by_task(intervals), "covers": draws.covers}


def differences(ours: Side, theirs: Side, settings: Settings, *, most: float = 1.0) -> dict[str, Any]:
    """`difference` of one pair."""
    return difference(draw({"": (ours, theirs)}, settings)[""], settings, most=most)


def kept(draws: Draws, teacher: Draws, settings: Settings) -> dict[str, float] | None:
    """Ratio of the model's mean to the teacher's; None if the teacher scores 0."""
    if not teacher.value[None] > 0 or not np.all(teacher.resampled[None] > 0):
        return None
    ratio = interval(draws.value[None] / teacher.value[None], draws.resampled[None] / teacher.resampled[None], settings)
    return {**ratio, "low": max(0.0, ratio["low"])}


def fewest(settings: Settings) -> int:
    """Least number of differing examples for a significant difference: all on one side has probability ≤ `tail`."""
    return math.ceil(-math.log2(settings.tail) - 1e-9)


def verdict(difference: Mapping[str, float]) -> str:
    """`better`, `worse`, or `open` if the interval of a difference contains zero."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "open"


def seed_means(side: Side) -> tuple[dict[str, list[float]], list[float]]:
    """Task → each seed's score, and each seed's mean over tasks."""
    means = {task: rows.mean(axis=1) for task, rows in side.items()}
    overall = np.mean(list(means.values()), axis=0)
    return {task: [rounded(x) for x in values] for task, values in means.items()}, [rounded(x) for x in overall]


def _by_task(entries: Mapping[str | None, dict[str, float]]) -> dict[str, Any]:
    return {"mean": entries[None], "tasks": {key: entry for key, entry in entries.items() if key is not None}}
