"""Which sample comes when: a function of (seed, epoch) alone, so that any moment of a training can be replayed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Position:
    """Where in the data a training stands: `step` batches of epoch `epoch` are done."""

    epoch: int
    step: int


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch, readable shard by shard.

    The shards' samples, shards in the order `shards`, are laid end to end and cut into windows of `window` samples;
    within its window every sample may come anywhere. One window is a global shuffle. Windows are shuffled one by one
    when they are served, so that memory and the way to a later one do not grow with the samples.

    Attributes:
        seed, epoch: what the order is of.
        samples: in all.
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
        """How many there are."""
        return -(-self.samples // self.window)

    def within(self, number: int) -> NDArray[np.int64]:
        """Window `number` as it is served: places counted from the window's own beginning; [its samples]."""
        length = min(self.window, self.samples - number * self.window)
        return _generator("window", self.seed, self.epoch, number).permutation(length)


def epoch_order(sizes: Sequence[int], *, seed: int, epoch: int, buffer: int) -> EpochOrder:
    """Shards permuted, samples shuffled within a buffer of `buffer` samples.

    Args:
        sizes: samples of each shard.
        buffer: samples that may lie in memory. Where it holds all, there is one window; otherwise windows of half of
            it, as one is served while the next is read.
    """
    samples = sum(sizes)
    window = samples if buffer >= samples else max(1, buffer // 2)
    return EpochOrder(seed, epoch, samples, _generator("order", seed, epoch).permutation(len(sizes)), window)


def caption_of(key: str, epoch: int, captions: int) -> int:
    """The caption that epoch `epoch` of sample `key` uses: hash(key, epoch) mod `captions`, unrelated to the view's."""
    return _hash("caption", key, epoch) % captions


def _generator(*identity: object) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_hash(*identity)))


def _hash(*identity: object) -> int:
    text = "\0".join(str(part) for part in identity)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=b"distill").digest(), "little")
