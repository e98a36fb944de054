"""Perceptual hash by which training images near a benchmark image are found: 256-bit difference hash of luminance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
THRESHOLD = (
    26  # of 256 bits; of pairs looked at, the farthest that show the same drawing are 26 apart, most are under 16
)
Hashes = NDArray[np.uint64]


def dhash(image: Image.Image) -> NDArray[np.uint64]:
    """Four 64-bit words: whether each cell of a 16 × 17 grid is clearly darker than its right neighbour."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits = (grey[:, 1:] - grey[:, :-1]) > 1  # above 1: flat white stays 0 after lossy encoding
    return np.packbits(bits.ravel()).view(np.uint64)


def near_pairs(left: Hashes, right: Hashes, threshold: int = THRESHOLD) -> list[tuple[int, int, int]]:
    """Pairs (i, j, distance) of rows of `left` `[n, 4]` and `right` `[m, 4]` within `threshold` bits."""
    found = []
    for start in range(0, len(left), 512):
        block = left[start : start + 512]
        distance = np.bitwise_count(block[:, None] ^ right[None]).sum(-1)
        found += [(start + i, j, int(distance[i, j])) for i, j in np.argwhere(distance <= threshold).tolist()]
    return found
