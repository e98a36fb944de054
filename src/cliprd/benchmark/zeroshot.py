"""Zero-shot classification: the predicted class is the one whose mean prompt embedding is nearest.

Shapes: N images, C classes, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cliprd.statistics.bootstrap import class_weights
from cliprd.statistics.outcomes import Outcomes

TOP = 5
_BLOCK = 1 << 24  # similarities in memory at a time


def classify(image_ND: NDArray[np.float32], class_CD: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Outcomes:
    """Top-1, top-5 (from five classes on) and mean per class recall, as `acc1`, `acc5`, `mean_per_class_recall`.

    A tie goes to the class with the lower number. The mean per class is over the classes that occur among the labels.

    Args:
        image_ND, class_CD: L2-normalised.
        labels_N: true classes.
    """
    predicted = top_classes(image_ND, class_CD)
    hits = predicted == labels_N[:, None]
    first = hits[:, 0].astype(np.float32)
    values = {"acc1": first}
    if len(class_CD) >= TOP:
        values["acc5"] = hits.any(axis=1).astype(np.float32)
    values["mean_per_class_recall"] = first
    return Outcomes(values, {"mean_per_class_recall": class_weights(labels_N)}, {"predicted": predicted})


def top_classes(image_ND: NDArray[np.float32], class_CD: NDArray[np.float32]) -> NDArray[np.int32]:
    """`[N, min(5, C)]`: the nearest classes, best first; ties in the order of class numbers."""
    images, classes_DC = torch.from_numpy(image_ND), torch.from_numpy(class_CD).T
    block = max(1, _BLOCK // len(class_CD))
    parts = [
        torch.sort(images[start : start + block] @ classes_DC, dim=1, descending=True, stable=True)
        .indices[:, :TOP]
        .int()
        for start in range(0, len(images), block)
    ]
    return torch.cat(parts).numpy()
