"""What every kind of score has in common: one outcome per example, whose (weighted) mean is the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprd.intervals import Interval, bootstrap


@dataclass(frozen=True)
class Outcomes:
    """Results of one task under one protocol, example by example.

    Attributes:
        values: metric → `[n]` outcomes; their mean, weighted where `weights` has the metric, is the score.
        weights: metric → `[n]` positive weights.
        extra: further arrays for the outcomes file (predictions, ranks).
    """

    values: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, *, resamples: int, confidence: float, seed: int) -> dict[str, Interval]:
        """Each metric's score with its bootstrap interval over the examples."""
        return {
            metric: bootstrap(
                values, resamples=resamples, confidence=confidence, seed=seed, weights=self.weights.get(metric)
            )
            for metric, values in self.values.items()
        }

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """As they go into `outcomes/<task>.safetensors`."""
        return {
            **{f"{prefix}.{metric}": values for metric, values in self.values.items()},
            **{f"weights.{prefix}.{metric}": weights for metric, weights in self.weights.items()},
            **{f"{prefix}.{name}": array for name, array in self.extra.items()},
        }
