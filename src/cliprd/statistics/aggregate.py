"""From outcomes per example to scores, paired differences and shares kept: over tasks and seeds, by one rule.

The examples of every task are resampled (`bootstrap.resample`), the same ones for every model: what all models find
hard or easy cancels in a difference. The tasks stay as they are, so an interval speaks of these tasks.

With several seeds the question is what the *recipe* does, so training noise belongs to the interval. Resampling three
seeds would be far too narrow; instead the spread of the seeds' means, pooled over both sides of a difference, comes in
as Student's t with the seeds' degrees of freedom (all seeds less one a side). A side with one seed borrows the other's
spread. With one seed a side, and where the seeds' means do not differ at all, nothing is known of training noise: the
interval covers the examples only and speaks of *these trainings*.

A difference that rests on a handful of examples could fall on one side by chance however the draws look: with fewer
than `fewest` examples that differ the interval reaches to zero (six at 0.95: the sign test's smallest number).
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
        covers: `EXAMPLES`, or `SEEDS` where several seeds show how much trainings differ.
    """

    value: Mapping[str | None, float]
    resampled: Mapping[str | None, Array]
    differing: Mapping[str | None, int]
    covers: str


def draw(quantities: Mapping[Key, Sequence[Side]], settings: Settings) -> dict[Key, Draws]:
    """Resample all quantities together.

    Args:
        quantities: each is one side, whose score is meant, or two, whose difference (first − second) is meant. All have
            the same tasks, with the same examples in the same order.
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
    found = {}
    for name, sides in quantities.items():
        value[name][None] = float(np.mean([value[name][task] for task in tasks]))
        resampled[name][None] = np.mean([resampled[name][task] for task in tasks], axis=0)
        differing[name][None] = sum(differing[name][task] for task in tasks)
        noise = _training_noise(sides, settings)
        for key, draws in noise.items():
            resampled[name][key] = resampled[name][key] + draws
        covers = SEEDS if noise and noise[None].any() else EXAMPLES
        found[name] = Draws(value[name], resampled[name], differing[name], covers)
    return found


def _row(sides: Sequence[Array]) -> Array:
    """`[examples]`: the mean over seeds, or the difference of two. Sums first: whole numbers of hits stay exact."""
    first = sides[0].sum(axis=0) / len(sides[0])
    if len(sides) == 1:
        return np.asarray(first)
    ours, theirs = sides
    if len(ours) == len(theirs):
        return np.asarray((ours.sum(axis=0) - theirs.sum(axis=0)) / len(ours))
    return np.asarray(first - theirs.sum(axis=0) / len(theirs))


def _training_noise(sides: Sequence[Side], settings: Settings) -> dict[str | None, Array]:
    """Draws of the error that the choice of training seeds makes, per task and for the mean; empty with one seed each.

    Student's t as its quantiles in the middle of equal shares, in random order.
    """
    means: list[dict[str | None, Array]] = [{task: rows.mean(axis=1) for task, rows in side.items()} for side in sides]
    for side in means:
        side[None] = np.mean(list(side.values()), axis=0)
    counts = [len(side[None]) for side in means]
    freedom = sum(counts) - len(counts)
    if freedom == 0:
        return {}
    from scipy.special import stdtrit  # costs a fifth of a second

    generator = np.random.default_rng((settings.seed, freedom))
    student = generator.permutation(stdtrit(freedom, (np.arange(settings.resamples) + 0.5) / settings.resamples))
    scale = math.sqrt(sum(1 / count for count in counts) / freedom)
    squares = {key: sum(float(((side[key] - side[key].mean()) ** 2).sum()) for side in means) for key in means[0]}
    return {key: student * scale * math.sqrt(square if square > 1e-24 else 0.0) for key, square in squares.items()}


def score(draws: Draws, settings: Settings) -> dict[str, Any]:
    """`{"mean": interval, "tasks": {task: interval}}` of one model; shares, so no end lies outside of 0 to 1."""
    found = {key: interval(value, draws.resampled[key], settings) for key, value in draws.value.items()}
    return _by_task({k: {**i, "low": max(0.0, i["low"]), "high": min(1.0, i["high"])} for k, i in found.items()})


def difference(draws: Draws, settings: Settings, *, most: float = 1.0) -> dict[str, Any]:
    """`{"mean": interval, "tasks": {task: interval}, "covers"}` of a paired difference, at `most` so much."""
    few = fewest(settings)
    found: dict[str | None, dict[str, float]] = {}
    for key, value in draws.value.items():
        found[key] = interval(value, draws.resampled[key], settings)
        if draws.differing[key] < few:
            found[key] |= {"low": min(0.0, found[key]["low"]), "high": max(0.0, found[key]["high"])}
        found[key] |= {"low": max(-most, found[key]["low"]), "high": min(most, found[key]["high"])}
    return {**_by_task(found), "covers": draws.covers}


def differences(ours: Side, theirs: Side, settings: Settings, *, most: float = 1.0) -> dict[str, Any]:
    """`difference` of one pair."""
    return difference(draw({"": (ours, theirs)}, settings)[""], settings, most=most)


def kept(draws: Draws, teacher: Draws, settings: Settings) -> dict[str, float] | None:
    """The model's mean over the teacher's; None where the teacher scores nothing."""
    if not teacher.value[None] > 0 or not np.all(teacher.resampled[None] > 0):
        return None
    ratio = interval(draws.value[None] / teacher.value[None], draws.resampled[None] / teacher.resampled[None], settings)
    return {**ratio, "low": max(0.0, ratio["low"])}


def fewest(settings: Settings) -> int:
    """Examples that must differ before a difference can be more than chance: all on one side with a chance ≤ tail."""
    return math.ceil(-math.log2(settings.tail) - 1e-9)


def verdict(difference: Mapping[str, float]) -> str:
    """`better`, `worse`, or `open` where the interval of a difference does not leave zero out."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "open"


def seed_means(side: Side) -> tuple[dict[str, list[float]], list[float]]:
    """Each seed's score: task → one a seed, and the means over tasks."""
    means = {task: rows.mean(axis=1) for task, rows in side.items()}
    overall = np.mean(list(means.values()), axis=0)
    return {task: [rounded(x) for x in values] for task, values in means.items()}, [rounded(x) for x in overall]


def _by_task(entries: Mapping[str | None, dict[str, float]]) -> dict[str, Any]:
    return {"mean": entries[None], "tasks": {key: entry for key, entry in entries.items() if key is not None}}
