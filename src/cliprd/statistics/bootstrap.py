"""Percentile bootstrap over the examples of one task, which all intervals are computed with.

The resamples of a task depend only on the seed, the task's name and its number of examples. So all models, metrics and
commands see the same resampled examples: differences are paired, and a score has the same interval everywhere.

A mean per class is a weighted mean with weights of one over the size of the example's class. Examples are resampled
with fixed weights over all classes together: resampling within classes would give no uncertainty at all for a class of
one example.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

BLOCK = 100  # resamples drawn at a time: bounds the memory to 100 × examples


@dataclass(frozen=True)
class Settings:
    """Settings of intervals: `benchmark.bootstrap`, `.confidence` and `.seed`, as results.json records them."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    @classmethod
    def of(cls, results: Mapping[str, Any], confidence: float | None = None) -> Settings:
        """The settings in a benchmark's results.json, with `confidence` replaced if given."""
        recorded = cls(**results["bootstrap"])
        return recorded if confidence is None else replace(recorded, confidence=confidence)

    @property
    def tail(self) -> float:
        """Nominal probability of a value beyond one end of an interval."""
        return (1 - self.confidence) / 2

    @property
    def enough(self) -> bool:
        """Whether there are enough resamples to estimate the interval's percentiles."""
        return (self.resamples + 1) * self.tail >= 1 - 1e-9


def resample(task: str, rows: Array, settings: Settings, weights: ArrayLike | None = None) -> Array:
    """`[K, resamples]`: the means of K rows `[K, n]` over the same resampled columns.

    Args:
        task: its name.
        rows: one value an example.
        settings: number of resamples and seed.
        weights: `[n]`, positive: the means are Σwv/Σw (see `class_weights`).

    Raises:
        ValueError: no examples, or values that are not finite.
    """
    items = rows.shape[1]
    if items == 0:
        raise ValueError("no examples: there is nothing to resample")
    if not np.isfinite(rows).all():
        raise ValueError("values must be finite")
    scale = np.ones(items) if weights is None else np.asarray(weights, dtype=np.float64)
    generator = np.random.default_rng((settings.seed, zlib.crc32(task.encode()), items))
    table = np.vstack([rows * scale, scale])
    parts = []
    for start in range(0, settings.resamples, BLOCK):
        sums = table @ _counts(items, min(BLOCK, settings.resamples - start), generator)
        parts.append(sums[:-1] / sums[-1])
    return np.concatenate(parts, axis=1)


def _counts(items: int, resamples: int, generator: np.random.Generator) -> Array:
    """`[items, resamples]`: how often each example is drawn. Integers, so sums of hits are exact in any order."""
    drawn = generator.integers(0, items, size=(resamples, items)) + np.arange(resamples)[:, None] * items
    counts = np.bincount(drawn.ravel(), minlength=items * resamples).reshape(resamples, items)
    return counts.T.astype(np.float64)


def interval(value: float, resampled: Array, settings: Settings) -> dict[str, float]:
    """`{"value", "low", "high"}`: the estimate with the central percentiles of its resamples."""
    low, high = np.quantile(resampled, (settings.tail, 1 - settings.tail))
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def rounded(value: float) -> float:
    """Round to ten digits, which hides differences in summation order between machines."""
    return round(float(value), 10) + 0.0


def class_weights(labels: ArrayLike) -> Array:
    """`[n]` labels → `[n]` weights under which a weighted mean is the mean per class (of the classes that occur)."""
    _, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse], dtype=np.float64)
