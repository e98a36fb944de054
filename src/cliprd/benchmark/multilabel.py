"""Multilabel classification by mean average precision, as in CLIP_benchmark.

For each class, images are ranked by similarity. A class's average precision is the mean, over the images that show it,
of the precision at their ranks; the score is the mean over all classes, with 0 for a class that no image shows. In a
tie, images that show the class are ranked last, so that a model that maps all images to one point does not profit from
the order of the test set.

Shapes: N images, C classes, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cliprd.benchmark.zeroshot import top_classes
from cliprd.statistics.outcomes import Outcomes

METRIC = "mean_average_precision"


def rank_images(image_ND: NDArray[np.float32], class_CD: NDArray[np.float32], labels_NC: NDArray[np.bool_]) -> Outcomes:
    """`mean_average_precision`, as jackknife values of the images, centred so that their mean is the score.

    A precision depends on all images. As in `fidelity`, an image's value is the effect of leaving it out; intervals and
    paired differences are computed from these values.

    Args:
        image_ND, class_CD: L2-normalised.
        labels_NC: the classes that each image shows.
    """
    n, classes = labels_NC.shape
    value, without_N = 0.0, np.zeros(n)
    for c in range(classes):
        similarity = torch.from_numpy(image_ND) @ torch.from_numpy(class_CD[c])
        order = np.lexsort((labels_NC[:, c], -similarity.numpy()))
        precision, left_out = average_precision(labels_NC[order, c])
        value += precision / classes
        without_N[order] += left_out / classes
    jackknife = value + (n - 1) * (without_N.mean() - without_N)
    return Outcomes({METRIC: jackknife.astype(np.float32)}, {}, {"predicted": top_classes(image_ND, class_CD)})


def average_precision(shown: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Average precision of ranked images, best first, and `[N]`: the same with each image left out.

    Args:
        shown: `[N]`, whether an image shows the class; 0 where none does.
    """
    rank = np.arange(1, len(shown) + 1)
    before = np.cumsum(shown)  # number of images that show it, up to each rank
    total = int(before[-1])
    if total == 0:
        return 0.0, np.zeros(len(shown))
    own = shown * before / rank
    # Without an image, later ones move up by one; if it shows the class, they also have one fewer hit before them.
    moved = shown * before / np.maximum(rank - 1, 1)
    fewer = shown * (before - 1) / np.maximum(rank - 1, 1)
    after_moved, after_fewer = (part[::-1].cumsum()[::-1] - part for part in (moved, fewer))
    ahead = own.cumsum() - own
    left_out = np.where(shown, (ahead + after_fewer) / max(total - 1, 1), (ahead + after_moved) / total)
    return float(own.sum() / total), left_out


def random_precision(images: int, shown: NDArray[np.int64]) -> float:
    """Expected mean average precision of images in random order.

    Of n images, p of which show the class, the one at rank k shows it with probability p/n, and given that, each before
    it with (p-1)/(n-1). For few images or rare classes the result is far above the share p/n.

    Args:
        images: number of images.
        shown: `[C]`, number of images that show each class, possibly 0.
    """
    if images == 1:
        return float((shown > 0).mean())
    harmonic = float((1 / np.arange(1, images + 1)).sum())
    expected_C = (harmonic + (images - harmonic) * (shown - 1) / (images - 1)) / images
    return float(np.where(shown > 0, expected_C, 0.0).mean())
