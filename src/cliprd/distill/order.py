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
    within its window every sample may come anywhere. One window is a global shuffle.

    Attributes:
        shards: indices of the shards in reading order.
        window: samples a window; the last one may be shorter.
        places: for each sample served, its place in the laid-out sequence; [samples].
    """

    shards: NDArray[np.int64]
    window: int
    places: NDArray[np.int64]


def epoch_order(sizes: Sequence[int], *, seed: int, epoch: int, buffer: int) -> EpochOrder:
    """Shards permuted, samples shuffled within a buffer of `buffer` samples.

    Args:
        sizes: samples of each shard.
        buffer: samples that may lie in memory. Where it holds all, there is one window; otherwise windows of half of
            it, as one is served while the next is read.
    """
    generator = np.random.Generator(np.random.Philox(key=_hash("order", seed, epoch)))
    samples = sum(sizes)
    window = samples if buffer >= samples else max(1, buffer // 2)
    shards = generator.permutation(len(sizes))
    places = np.arange(samples)
    for start in range(0, samples, window):
        generator.shuffle(places[start : start + window])
    return EpochOrder(shards, window, places)


def caption_of(key: str, epoch: int, captions: int) -> int:
    """The caption that epoch `epoch` of sample `key` uses: hash(key, epoch) mod `captions`, unrelated to the view's."""
    return _hash("caption", key, epoch) % captions


def _hash(*identity: object) -> int:
    text = "\0".join(str(part) for part in identity)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=b"distill").digest(), "little")
