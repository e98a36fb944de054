"""Confusion counts from labels and predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def counts(labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """`[classes, classes]`: how often a true class (row) was given each predicted one (column)."""
    flat = np.bincount(labels.astype(np.int64) * classes + predictions.astype(np.int64), minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def most_confused(matrix: NDArray[np.int64], classes: Sequence[str], most: int = 8) -> list[tuple[str, str, int, int]]:
    """The most frequent mistakes as (true, predicted, count, examples of the true class), ties in class order.

    Mistakes that occur once are left out.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    totals = matrix.sum(axis=1)
    mistakes = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, predicted] > 1:
            mistakes.append((classes[true], classes[predicted], int(wrong[true, predicted]), int(totals[true])))
    return mistakes
