"""Order of samples: a function of (seed, epoch) alone, so that any position of a training can be reproduced."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Position:
    """A training's position in the data: `step` batches of epoch `epoch` are done."""

    epoch: int
    step: int


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch, readable shard by shard.

    The samples of the shards, in the order `shards`, are concatenated and divided into windows of `window` samples,
    each of which is shuffled. One window is a global shuffle. A window is shuffled when it is served, so that neither
    memory nor the time to reach a later window grows with the number of samples.

    Attributes:
        seed, epoch: determine the order.
        samples: in total.
        shards: indices of the shards in reading order.
        window: samples a window; the last one may be shorter.
    """

    seed: int
    epoch: int
    samples: int
    shards: NDArray[np.int64]
    window: int

    @property
    def windows(self) -> int:
        """Number of windows."""
        return -(-self.samples // self.window)

    def within(self, number: int) -> NDArray[np.int64]:
        """Order of window `number`: positions relative to the window's start, `[its samples]`."""
        length = min(self.window, self.samples - number * self.window)
        return _generator("window", self.seed, self.epoch, number).permutation(length)


def epoch_order(sizes: Sequence[int], *, seed: int, epoch: int, buffer: int) -> EpochOrder:
    """Shards permuted, and samples shuffled within a buffer.

    Args:
        sizes: samples of each shard.
        buffer: samples in memory. If all fit, there is one window; otherwise windows have half its size, as one is
            served while the next is read.
    """
    samples = sum(sizes)
    window = samples if buffer >= samples else max(1, buffer // 2)
    return EpochOrder(seed, epoch, samples, _generator("order", seed, epoch).permutation(len(sizes)), window)


def caption_of(key: str, epoch: int, captions: int) -> int:
    """The caption that epoch `epoch` of sample `key` uses: hash(key, epoch) mod `captions`, not related to the view."""
    return _hash("caption", key, epoch) % captions


def _generator(*identity: object) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_hash(*identity)))


def _hash(*identity: object) -> int:
    text = "\0".join(str(part) for part in identity)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=b"distill").digest(), "little")
