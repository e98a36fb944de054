"""Captions repeat ("stock photo"): each is embedded once, and its row remembered within a bound of memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BUDGET = 2**26  # bytes of remembered rows: some 80,000 captions of width 256
_OVERHEAD = 320  # bytes, measured, that a Python dictionary entry and array object take beside the row

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
        new = self.new(captions)
        known = {key: self._rows[key] for key in keys if key in self._rows}
        if new:
            known |= dict(zip(new, embed(list(new.values())), strict=True))
            self.embedded += len(new)
        rows = np.stack([known[key] for key in keys])
        self.remember(keys, rows)
        return rows

    def new(self, captions: Sequence[str]) -> dict[bytes, str]:
        """Key and text of those that are not known, each once, in the order in which they are embedded."""
        unknown = {key: text for text in captions if (key := digest(text)) not in self._rows}
        # neighbours of like length share a batch, which a text tower cuts to its longest
        return dict(sorted(unknown.items(), key=lambda item: (len(item[1]), item[1])))

    def agree(self, keys: Iterable[bytes], rows: NDArray[np.float16]) -> bool:
        """Whether each of these captions that is known has the row given for it, to the bit."""
        return all(
            np.array_equal(self._rows[key].view(np.uint16), row.view(np.uint16))
            for key, row in zip(keys, rows, strict=True)
            if key in self._rows
        )

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


def digest_of(new: Iterable[bytes]) -> str:
    """Of the captions embedded together, by their keys."""
    return hashlib.blake2b(b"".join(new), digest_size=16).hexdigest()


def digest(caption: str) -> bytes:
    """Key of a caption: 128 bits, so that two different ones do not meet."""
    return hashlib.blake2b(caption.encode(), digest_size=16).digest()
