"""Captions repeat ("stock photo"): each is embedded once, and its row remembered within a bound of memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BUDGET = 2**28  # bytes of remembered rows: some 400,000 captions of width 256
_OVERHEAD = 200  # bytes a Python dictionary entry and array object take beside the row

S = TypeVar("S")
Embed = Callable[[Sequence[str]], NDArray[np.float16]]


class CaptionRows:
    """Least recently used rows go first. The state is a function of the captions seen, shard by shard.

    So a resumed build that is shown the captions of the finished shards (`remember`) goes on exactly as the
    undisturbed one, down to which captions share a batch.
    """

    def __init__(self, dim: int, budget: int = BUDGET) -> None:
        self.capacity = max(1, budget // (2 * dim + _OVERHEAD))
        self.embedded = 0
        self._rows: OrderedDict[bytes, NDArray[np.float16]] = OrderedDict()

    def rows(self, captions: Sequence[str], embed: Embed) -> NDArray[np.float16]:
        """Rows `[len(captions), dim]` of one shard's captions; `embed` is called with the unknown ones, each once."""
        keys = [digest(caption) for caption in captions]
        unknown = {key: text for key, text in zip(keys, captions, strict=True) if key not in self._rows}
        # neighbours of like length share a batch, which a text tower cuts to its longest
        ordered = sorted(unknown.items(), key=lambda item: (len(item[1]), item[1]))
        known = {key: self._rows[key] for key in keys if key in self._rows}
        if ordered:
            known |= dict(zip([key for key, _ in ordered], embed([text for _, text in ordered]), strict=True))
            self.embedded += len(ordered)
        rows = np.stack([known[key] for key in keys])
        self.remember(keys, rows)
        return rows

    def remember(self, keys: Iterable[bytes], rows: NDArray[np.float16]) -> None:
        """Note the rows of one shard's captions, in order."""
        for key, row in zip(keys, rows, strict=True):
            if key in self._rows:
                self._rows.move_to_end(key)
            else:
                self._rows[key] = np.array(row)  # a copy: a view would keep the shard's whole array alive
        while len(self._rows) > self.capacity:
            self._rows.popitem(last=False)


def replay(
    known: CaptionRows,
    shards: Sequence[S],
    keys_of: Callable[[S], list[bytes]],
    rows_of: Callable[[S], NDArray[np.float16]],
) -> None:
    """Bring `known` to where it would stand had `shards` been embedded one by one; reads only what matters."""
    needed: list[tuple[S, list[bytes]]] = []
    distinct: set[bytes] = set()
    for shard in reversed(shards):
        if len(distinct) >= known.capacity:
            break  # what lies further back would have been forgotten
        needed.append((shard, keys_of(shard)))
        distinct.update(needed[-1][1])
    for shard, keys in reversed(needed):
        known.remember(keys, rows_of(shard))


def digest(caption: str) -> bytes:
    """Key of a caption: 128 bits, so that two different ones do not meet."""
    return hashlib.blake2b(caption.encode(), digest_size=16).digest()
