"""One outcome per example: what every score is the (weighted) mean of, and which outcomes a task is judged by."""

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
        values: metric → `[n]` outcomes; their mean, weighted where `weights` has the metric, is the score.
        weights: metric → `[n]` positive weights.
        extra: further arrays for the outcomes file (predictions, ranks).
    """

    values: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, task: str, settings: Settings) -> dict[str, dict[str, float]]:
        """Metric → `{"value", "low", "high"}`, over the examples of the task."""
        groups: dict[Any, list[str]] = {}  # what can be drawn together
        for metric, values in self.values.items():
            groups.setdefault(metric if metric in self.weights else len(values), []).append(metric)
        found: dict[str, dict[str, float]] = {}
        for metrics in groups.values():
            weights = self.weights.get(metrics[0])
            rows = np.stack([np.asarray(self.values[metric], dtype=np.float64) for metric in metrics])
            drawn = resample(task, rows, settings, weights)
            means = np.average(rows, axis=1, weights=weights)
            found |= {m: interval(v, d, settings) for m, v, d in zip(metrics, means, drawn, strict=True)}
        return {metric: found[metric] for metric in self.values}

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """As they go into `outcomes/<task>.safetensors`."""
        return {
            **{f"{prefix}.{metric}": values for metric, values in self.values.items()},
            **{f"weights.{prefix}.{metric}": weights for metric, weights in self.weights.items()},
            **{f"{prefix}.{name}": array for name, array in self.extra.items()},
        }


# Kind → the tensor of its primary metric; of retrieval it is the mean of two (`retrieval`).
PRIMARY = {
    "classification": "acc1",
    "multilabel": "mean_average_precision",
    "image_caption_selection": "text_acc",
}


def primary(outcomes: Mapping[str, Any], protocol: str, kind: str) -> Array:
    """`[images]`: what the stage `benchmark` wrote of one task, as the numbers whose mean is its primary metric.

    That is the one in `PRIMARY`, or for retrieval the mean of R@1 in both directions.
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

    The image is the unit that is resampled, and its captions go with it: they are not independent examples. An image's
    captions count by their number over the average number, so that the mean over the images is exactly
    ½ (mean over the images + mean over all captions).

    Args:
        image_to_text: `[n]`, 1 where the picture found one of its captions first.
        text_to_image: `[n]`, share of the image's captions that found it first.
        captions: `[n]`, how many captions an image has; None where all have one.
    """
    weight = 1.0 if captions is None else captions / captions.mean()
    return np.asarray(0.5 * image_to_text + 0.5 * text_to_image * weight, dtype=np.float64)
