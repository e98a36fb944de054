"""Image caption selection: is an image's first caption, the only right one, the nearest?

CLIP_benchmark's `text_acc` with one image an example, as in SugarCrepe. A tie with a wrong caption counts as wrong, so
that a model that maps all texts to one point does not score 100 %.

Shapes: N images, M captions, D width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliprd.statistics.outcomes import Outcomes

METRIC = "text_acc"


def select(image_ND: NDArray[np.float32], text_MD: NDArray[np.float32], owner_M: NDArray[np.int64]) -> Outcomes:
    """`text_acc` over the images.

    Args:
        image_ND, text_MD: L2-normalised.
        owner_M: the image of each caption, in ascending order; an image has two captions or more, the right one first.
    """
    similarity_M = (image_ND[owner_M] * text_MD).sum(axis=1)
    first_N = np.searchsorted(owner_M, np.arange(len(image_ND)))
    wrong_M = similarity_M.copy()
    wrong_M[first_N] = -np.inf
    hits_N = similarity_M[first_N] > np.maximum.reduceat(wrong_M, first_N)
    return Outcomes({METRIC: hits_N.astype(np.float32)})
