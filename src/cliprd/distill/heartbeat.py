"""Signs of life between ranks: one that hangs (stopped, swapped out, cut off) ends the training within half a minute.

A bound on the collectives themselves would have to wait for the longest work of one rank alone: a checkpoint, an
export, a slow read. So each rank counts up in the store where they met, in a thread of its own, and watches the next
rank's count; of the last it is the first's. Whoever hangs has somebody before him who does not, or nobody is left.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType

from torch._C._distributed_c10d import Store

EVERY = 2.0  # seconds between two signs
MISSED = 10  # signs in a row
LEFT = 1 << 40  # what a rank that ends well adds: it is no longer missed


class Heartbeat:
    """While the block runs, this rank gives signs of life and watches over the next one.

    Time is counted in this rank's own signs: where the whole machine was suspended, nobody is missed.

    Args:
        store: where the ranks have met; a connection of its own, since a call may hang with the store's host.
        lost: called with the rank that gives no sign, from a thread while the main one is likely to be blocked for
            good: it is to end the process.
        every: seconds.
    """

    def __init__(
        self, store: Store, rank: int, size: int, lost: Callable[[int], object], *, every: float = EVERY
    ) -> None:
        self._store, self._own, self._next = store, f"sign-{rank}", (rank + 1) % size
        self._lost, self._every = lost, every
        self._seen, self._ended = 0, threading.Event()
        self._threads = [
            threading.Thread(target=run, daemon=True, name="heartbeat") for run in (self._beat, self._watch)
        ]

    def __enter__(self) -> Heartbeat:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._threads[0].join(self._every)  # it may hang: then nobody cares any more
        if kind is None and not self._threads[0].is_alive():
            with contextlib.suppress(RuntimeError):  # the store has ended first
                self._store.add(self._own, LEFT)

    def _beat(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone: `_watch` sees no sign then
            while not self._ended.wait(self._every):
                self._store.add(self._own, 1)
                self._seen = self._store.add(f"sign-{self._next}", 0)

    def _watch(self) -> None:
        last, missed = -1, 0
        while not self._ended.wait(self._every):
            missed = 0 if self._seen != last else missed + 1
            last = self._seen
            if last >= LEFT:
                return
            if missed == MISSED:
                self._lost(self._next)
                return
