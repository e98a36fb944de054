"""Similarities of student and teacher, for the geometry charts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def pair_similarities(a: Floats, b: Floats | None = None) -> NDArray[np.float32]:
    """Cosines of all pairs, `[pairs]`: a's rows with each other (i < j) or, given b, each row of a with each of b.

    Args:
        a: `[n, dim]` and b: `[m, dim]`, rows L2-normalised.
    """
    x = a.astype(np.float32)
    if b is not None:
        return np.asarray((x @ b.astype(np.float32).T).ravel(), dtype=np.float32)
    upper = np.triu_indices(len(x), k=1)
    return np.asarray((x @ x.T)[upper], dtype=np.float32)


def class_means(embeddings: Floats, labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """`[classes, dim]`: the mean of each class's rows; a class without rows gets zeros."""
    sums = np.zeros((classes, embeddings.shape[1]))
    np.add.at(sums, labels, embeddings.astype(np.float64))
    counts = np.bincount(labels, minlength=classes)[:, None]
    return np.asarray(sums / np.maximum(counts, 1))


def plane(means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two principal directions of `[C, dim]` class means: coordinates `[C, 2]`, centred, and directions `[2, dim]`.

    Signs are fixed (the largest entry of a direction is positive), so that equal inputs give equal pictures.
    """
    centred = means - means.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2] if len(directions) > 1 else np.vstack([directions, np.zeros_like(directions)])[:2]
    largest = np.take_along_axis(two, np.abs(two).argmax(axis=1)[:, None], axis=1)
    two = two * np.where(largest < 0, -1.0, 1.0)
    return centred @ two.T, two


def onto(teacher: NDArray[np.float64], student: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Rotate and scale student class means `[C, dim_s]` onto the teacher's `[C, dim_t]` (orthogonal Procrustes).

    Returns:
        The rotated means `[C, dim_t]`, centred, and the share of the teacher's variance that they explain, in [0, 1].
    """
    t = teacher - teacher.mean(axis=0)
    s = student - student.mean(axis=0)
    u, values, v = np.linalg.svd(s.T @ t, full_matrices=False)
    size = float((s**2).sum())
    spread = float((t**2).sum())
    if size == 0 or spread == 0:
        return np.zeros_like(t), 0.0
    scale = float(values.sum()) / size
    return scale * (s @ (u @ v)), float(values.sum()) ** 2 / (size * spread)
