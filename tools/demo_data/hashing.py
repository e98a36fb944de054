"""How near two images look: a 256-bit difference hash for every image, a stricter comparison within one library.

Between sources (emoji, clip art, photographs, renders) only copies of one picture are looked for: `near_pairs`.
Clip art drawn by one hand also comes in variants (recoloured, mirrored, with another frame), which the hash alone
calls far apart; `variants` finds them, and the clip-art task holds none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 16
THRESHOLD = 26  # of 256 bits: of pairs looked at, the farthest that are one drawing are 26 apart, most are under 16
VARIANT_BITS, VARIANT_CORRELATION = (
    48,
    0.95,
)  # pairs looked at: playing cards that differ in the frame have 30-45 and 0.96
Hashes = NDArray[np.uint64]


def dhash(image: Image.Image) -> Hashes:
    """Four 64-bit words: whether each cell of a 16 × 17 grid is clearly darker than its right neighbour."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits = (grey[:, 1:] - grey[:, :-1]) > 1  # above 1: flat white stays 0 after lossy encoding
    return np.packbits(bits.ravel()).view(np.uint64)


def near_pairs(left: Hashes, right: Hashes, threshold: int = THRESHOLD) -> list[tuple[int, int, int]]:
    """Pairs (i, j, distance) of rows of `left` `[n, 4]` and `right` `[m, 4]` within `threshold` bits."""
    found = []
    for start in range(0, len(left), 512):
        distance = _distances(left[start : start + 512], right)
        found += [(start + i, j, int(distance[i, j])) for i, j in np.argwhere(distance <= threshold).tolist()]
    return found


def variants(left: Sequence[Image.Image], right: Sequence[Image.Image]) -> list[tuple[int, int]]:
    """Pairs (i, j) where `right[j]` or its mirror image is `left[i]` but for colour, frame or a detail."""
    found: set[tuple[int, int]] = set()
    for flip in (False, True):
        turned = [ImageOps.mirror(image) if flip else image for image in right]
        hashes, tones = np.stack([dhash(image) for image in turned]), np.stack([_tones(image) for image in turned])
        for start in range(0, len(left), 512):
            block = left[start : start + 512]
            close = _distances(np.stack([dhash(image) for image in block]), hashes) <= VARIANT_BITS
            close &= np.stack([_tones(image) for image in block]) @ tones.T >= VARIANT_CORRELATION
            found |= {(start + i, j) for i, j in np.argwhere(close).tolist()}
    return sorted(found)


def _distances(left: Hashes, right: Hashes) -> NDArray[np.uint16]:
    return np.bitwise_count(left[:, None] ^ right[None]).sum(-1, dtype=np.uint16)


def _tones(image: Image.Image) -> NDArray[np.float32]:
    """A 16 × 16 thumbnail of the luminance, centred, of length 1: the inner product is the correlation."""
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32).ravel()
    grey -= grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-6)
