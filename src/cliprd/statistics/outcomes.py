"""Outcomes per example, of which scores are (weighted) means, and the primary metric of each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprd.statistics.bootstrap import Array, Settings, interval, resample


@dataclass(frozen=True)
class Outcomes:
    """Results of one task under one protocol, example by example.

    Attributes:
        values: metric → `[n]` outcomes; the score is their mean, weighted if `weights` has the metric.
        weights: metric → `[n]` positive weights.
        extra: further arrays for the outcomes file (predictions, ranks).
    """

    values: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, task: str, settings: Settings) -> dict[str, dict[str, float]]:
        """Metric → `{"value", "low", "high"}`, over the examples of the task."""
        groups: dict[Any, list[str]] = {}  # metrics that share resamples
        for metric, values in self.values.items():
            groups.setdefault(metric if metric in self.weights else len(values), []).append(metric)
        intervals: dict[str, dict[str, float]] = {}
        for metrics in groups.values():
            weights = self.weights.get(metrics[0])
            rows = np.stack([np.asarray(self.values[metric], dtype=np.float64) for metric in metrics])
            drawn = resample(task, rows, settings, weights)
            means = np.average(rows, axis=1, weights=weights)
            intervals |= {m: interval(v, d, settings) for m, v, d in zip(metrics, means, drawn, strict=True)}
        return {metric: intervals[metric] for metric in self.values}

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Arrays in the form of `outcomes/<task>.safetensors`."""
        return {
            **{f"{prefix}.{metric}": values for metric, values in self.values.items()},
            **{f"weights.{prefix}.{metric}": weights for metric, weights in self.weights.items()},
            **{f"{prefix}.{name}": array for name, array in self.extra.items()},
        }


# Kind → its primary metric; that of retrieval is the mean of two (`retrieval`).
PRIMARY = {
    "classification": "acc1",
    "multilabel": "mean_average_precision",
    "image_caption_selection": "text_acc",
}


def primary(outcomes: Mapping[str, Any], protocol: str, kind: str) -> Array:
    """`[images]`: outcomes of a task's primary metric, from the arrays that the stage `benchmark` wrote.

    The metric is the one in `PRIMARY`, or for retrieval the mean of R@1 in both directions.
    """
    if kind in PRIMARY:
        return np.asarray(outcomes[f"{protocol}.{PRIMARY[kind]}"], dtype=np.float64)
    return retrieval(
        outcomes[f"{protocol}.image_to_text_r1"].astype(np.float64),
        outcomes[f"{protocol}.text_to_image_r1"].astype(np.float64),
        outcomes.get(f"weights.{protocol}.text_to_image_r1"),
    )


def retrieval(image_to_text: Array, text_to_image: Array, captions: Array | None) -> Array:
    """`[n]`, one number per image, whose mean is the mean of R@1 in both directions.

    Images are resampled together with their captions, which are not independent examples. An image's captions are
    weighted by their number over the average number, so that the mean over the images is exactly
    ½ (mean over the images + mean over all captions).

    Args:
        image_to_text: `[n]`, 1 if one of the image's captions is ranked first.
        text_to_image: `[n]`, share of the image's captions for which the image is ranked first.
        captions: `[n]`, number of captions an image; None if all have one.
    """
    weight = 1.0 if captions is None else captions / captions.mean()
    return np.asarray(0.5 * image_to_text + 0.5 * text_to_image * weight, dtype=np.float64)
