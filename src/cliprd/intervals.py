"""Percentile bootstrap intervals: of one score, of a paired difference, and over several training seeds.

What is resampled are *examples* (and, where a method was trained several times, its seeds). A mean over examples with
few distinct values, such as hits and misses, is drawn through the counts of its distinct rows: the distribution is
exactly the bootstrap's, the cost is that of the distinct rows, and the order of the examples cannot matter.

A mean per class is a weighted mean whose weights are one over the size of the example's class. Examples are resampled
with these weights held fixed, over all classes together. Resampling within each class would be tighter where classes
are large, but says "no uncertainty at all" where a class has one example; here such a set gets the interval of its
plain accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]

_BLOCK = 8_000_000  # resampled counts held at once (64 MB)


@dataclass(frozen=True)
class Interval:
    """A score with its bootstrap interval.

    Attributes:
        value: the statistic of the data itself.
        low, high: percentiles of the bootstrap distribution.
        n: examples behind it.
        confidence: nominal coverage of [low, high].
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float

    def to_dict(self, digits: int = 6) -> dict[str, Any]:
        """Plain JSON form, rounded: further digits are noise and may differ between machines."""
        value, low, high = (round(x, digits) + 0.0 for x in (self.value, self.low, self.high))
        return {"value": value, "low": low, "high": high, "n": self.n, "confidence": self.confidence}


def bootstrap(
    values: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    weights: ArrayLike | None = None,
    statistic: Statistic | None = None,
) -> Interval:
    """Interval of a (weighted) mean over examples, or of any statistic of them.

    Args:
        values: `[n]`, one number per example; for `statistic` also `[n, ...]`.
        resamples: bootstrap resamples.
        confidence: nominal coverage, 0.95 for a 95 % interval.
        seed: of the resampling; equal arguments give equal intervals.
        weights: `[n]`, positive; the score is Σwv/Σw (see `class_weights`).
        statistic: takes resampled values, gives a number; None is the (weighted) mean, which is much faster.

    Raises:
        ValueError: no values, not finite, or shapes that do not fit.
    """
    rows = np.asarray(values, dtype=np.float64)
    if statistic is None:
        return hierarchical(rows[None], resamples=resamples, confidence=confidence, seed=seed, weights=weights)
    if weights is not None:
        raise ValueError("weights belong to the mean; a statistic of its own weighs by itself")
    _check(rows)
    rng = np.random.default_rng(seed)
    n = len(rows)
    draws = np.array([statistic(rows[rng.integers(0, n, n)]) for _ in range(resamples)])
    return _interval(statistic(rows), draws, n, confidence)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    weights: ArrayLike | None = None,
    statistic: Statistic | None = None,
) -> Interval:
    """Interval of score(a) − score(b), both seen on the same examples, which are resampled together.

    Args:
        a, b: `[n]`, or `[seeds, n]` when each method was trained several times (row s of both has the same seed;
            seeds are then resampled too, in pairs: see `hierarchical`).
        resamples, confidence, seed, weights, statistic: as in `bootstrap`; `statistic` needs `[n]`.

    Raises:
        ValueError: different shapes: the pairs would be of different examples.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"paired values need equal shapes, not {left.shape} and {right.shape}")
    if statistic is None:
        difference = np.atleast_2d(left - right)
        return hierarchical(difference, resamples=resamples, confidence=confidence, seed=seed, weights=weights)
    if left.ndim != 1:
        raise ValueError("a statistic of its own needs values [n]")
    both = np.stack([left, right], axis=1)

    def gap(rows: Floats) -> float:
        return statistic(rows[:, 0]) - statistic(rows[:, 1])

    return bootstrap(both, resamples=resamples, confidence=confidence, seed=seed, weights=weights, statistic=gap)


def hierarchical(
    values: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> Interval:
    """Interval of a mean over training seeds × examples: both are resampled, crossed (all seeds see the same examples).

    The seeds' deviations are widened by √(S/(S−1)), so that resampling S of S has the unbiased variance. With one
    seed the interval covers the choice of examples only. With few seeds (under about five) it is still too narrow
    when the seeds' spread dominates, as any percentile interval of so few values is.

    Args:
        values: `[seeds, n]`, the same n examples in each row.
        resamples, confidence, seed, weights: as in `bootstrap`; `weights` `[n]` are of the examples.
    """
    rows_SN = np.asarray(values, dtype=np.float64)
    if rows_SN.ndim != 2:
        raise ValueError(f"expected values [seeds, examples], not {rows_SN.shape}")
    _check(rows_SN)
    seeds, n = rows_SN.shape
    weights_N = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights_N.shape != (n,) or not (np.isfinite(weights_N).all() and (weights_N > 0).all()):
        raise ValueError(f"weights must be {n} positive numbers")
    means_S = rows_SN @ weights_N / weights_N.sum()
    value = float(means_S.mean())
    if seeds > 1:  # a constant added to a row adds the same to each of its weighted means
        rows_SN = rows_SN + ((np.sqrt(seeds / (seeds - 1)) - 1) * (means_S - value))[:, None]
    rng = np.random.default_rng(seed)
    draws_RS = _weighted_means(rows_SN, weights_N, resamples, rng)
    if seeds == 1:
        draws_R = draws_RS[:, 0]
    else:
        share_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
        draws_R = (draws_RS * share_RS).sum(axis=1)
    return _interval(value, draws_R, n, confidence)


def class_weights(labels: ArrayLike) -> Floats:
    """`[n]` labels → `[n]` weights under which a weighted mean is the mean per class (of the classes that occur)."""
    _, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse], dtype=np.float64)


def _weighted_means(rows_SN: Floats, weights_N: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Weighted means of each row under `resamples` resamplings of the examples: `[resamples, S]`."""
    table = np.column_stack([weights_N, (rows_SN * weights_N).T])
    distinct, counts = np.unique(table, axis=0, return_counts=True)  # sorted: the order of the examples is forgotten
    n, kinds = len(table), len(distinct)
    few = kinds * 8 <= n
    if not few:
        distinct, kinds = np.repeat(distinct, counts, axis=0), n
    parts = []
    block = max(1, _BLOCK // kinds)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            drawn = rng.multinomial(n, counts / n, size=size)
        else:
            picks = rng.integers(0, n, size=(size, n)) + (np.arange(size) * n)[:, None]
            drawn = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
        sums = drawn @ distinct
        parts.append(sums[:, 1:] / sums[:, :1])
    return np.concatenate(parts)


def _interval(value: float, draws: Floats, n: int, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value=float(value), low=float(low), high=float(high), n=n, confidence=confidence)


def _check(values: Floats) -> None:
    if values.size == 0:
        raise ValueError("no examples: there is nothing to resample")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite")
