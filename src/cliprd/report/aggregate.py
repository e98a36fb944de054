"""From outcomes per example to means over tasks, paired differences and shares kept, each with its interval.

What is resampled: the examples of every task and, when there are several, the seeds; the tasks stay as they are, so an
interval speaks of these tasks. Every model sees the same resampled examples and every method the same resampled seeds,
so a difference is paired: what all models find hard or easy cancels. Seeds and examples are crossed (each seed meets
each example), hence drawn independently of each other. Tasks are drawn independently of one another, also where two of
them share images. Intervals are percentile bootstrap intervals; as in `cliprd.intervals`, the seeds' deviations are
widened by √(S/(S−1)). This module stands beside that one because a mean over tasks and a ratio need the draws
themselves, not intervals of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Outcomes = Mapping[str, Mapping[str, Array]]  # model → task → [seeds, examples]


@dataclass(frozen=True)
class Draws:
    """Scores of one model: the estimate and its resamples, per task and for the mean over tasks.

    Attributes:
        value: task → score; the key None is the unweighted mean over tasks.
        resampled: the same keys → `[resamples]`.
    """

    value: Mapping[str | None, float]
    resampled: Mapping[str | None, Array]


def draw(outcomes: Outcomes, *, resamples: int, seed: int) -> dict[str, Draws]:
    """Resample all models together.

    Args:
        outcomes: every model has the same tasks, with the same examples in the same order. A model has one row per
            seed; those with one row (the teacher, or a grid with one seed) have no seeds to resample.
        resamples, seed: number of bootstrap draws and the generator's seed. A task's draws depend on the seed and the
            task's name and size alone, not on which models or other tasks are compared.
    """
    counts = sorted({len(next(iter(tasks.values()))) for tasks in outcomes.values()} - {1})
    seed_weights = {n: _weights(n, resamples, np.random.default_rng((seed, n))) for n in counts}
    tasks = list(next(iter(outcomes.values())))
    value: dict[str, dict[str | None, float]] = {model: {} for model in outcomes}
    resampled: dict[str, dict[str | None, Array]] = {model: {} for model in outcomes}
    for task in tasks:
        rows = np.concatenate([outcomes[model][task] for model in outcomes])
        generator = np.random.default_rng((seed, zlib.crc32(task.encode()), rows.shape[1]))
        means = _resampled_means(rows, resamples, generator)
        start = 0
        for model in outcomes:
            here = outcomes[model][task]
            block = means[start : start + len(here)]
            start += len(here)
            value[model][task] = float(here.mean())
            resampled[model][task] = _over_seeds(block, here.mean(axis=1), seed_weights.get(len(here)))
    for model in outcomes:
        value[model][None] = float(np.mean([value[model][task] for task in tasks]))
        resampled[model][None] = np.mean([resampled[model][task] for task in tasks], axis=0)
    return {model: Draws(value[model], resampled[model]) for model in outcomes}


def _over_seeds(block: Array, means: Array, weights: Array | None) -> Array:
    """`[seeds, resamples]` → `[resamples]`: the mean over resampled seeds, widened as told above."""
    if weights is None:
        return np.asarray(block[0])
    widening = np.sqrt(len(means) / (len(means) - 1)) - 1
    return np.asarray(((block + (widening * (means - means.mean()))[:, None]) * weights).sum(axis=0))


def _weights(items: int, resamples: int, generator: np.random.Generator) -> Array:
    """`[items, resamples]`: how often each item is drawn, as a share."""
    drawn = generator.integers(0, items, size=(resamples, items))
    flat = drawn + np.arange(resamples)[:, None] * items
    return np.bincount(flat.ravel(), minlength=items * resamples).reshape(resamples, items).T / items


def _resampled_means(rows: Array, resamples: int, generator: np.random.Generator, block: int = 100) -> Array:
    """`[K, resamples]`: the mean of each of K rows over the same resampled columns; blocks bound the memory."""
    parts = []
    for start in range(0, resamples, block):
        parts.append(rows @ _weights(rows.shape[1], min(block, resamples - start), generator))
    return np.concatenate(parts, axis=1)


def interval(value: float, resampled: Array, confidence: float) -> dict[str, float]:
    """`{"value", "low", "high"}`: the estimate with the central percentiles of its resamples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return {"value": _round(value), "low": _round(low), "high": _round(high)}


def scores(draws: Draws, confidence: float) -> dict[str, Any]:
    """`{"mean": interval, "tasks": {task: interval}}` of one model."""
    return _by_task({key: interval(draws.value[key], draws.resampled[key], confidence) for key in draws.value})


def differences(draws: Draws, reference: Draws, confidence: float) -> dict[str, Any]:
    """Paired differences to the reference, in the shape of `scores`."""
    return _by_task(
        {
            key: interval(
                draws.value[key] - reference.value[key], draws.resampled[key] - reference.resampled[key], confidence
            )
            for key in draws.value
        }
    )


def kept(draws: Draws, teacher: Draws, confidence: float) -> dict[str, float] | None:
    """The model's mean over the teacher's; None where the teacher scores nothing."""
    if not teacher.value[None] > 0 or not np.all(teacher.resampled[None] > 0):
        return None
    return interval(
        draws.value[None] / teacher.value[None], draws.resampled[None] / teacher.resampled[None], confidence
    )


def verdict(difference: Mapping[str, float]) -> str:
    """`better`, `worse`, or `open` where the interval of a difference has both signs."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "open"


def _by_task(entries: Mapping[str | None, dict[str, float]]) -> dict[str, Any]:
    return {"mean": entries[None], "tasks": {key: entry for key, entry in entries.items() if key is not None}}


def _round(value: float) -> float:
    """Ten digits: below any meaning, above any difference between two machines' summation orders."""
    return round(float(value), 10) + 0.0
