"""Heartbeats between ranks: a rank that hangs (stopped, swapped out, disconnected) ends the training in half a minute.

A timeout of the collectives would have to allow for the longest work of a single rank: a checkpoint, an export, a slow
read. So a thread of each rank increments a counter in the rendezvous store and watches the next rank's counter (the
last rank watches the first). A hanging rank is noticed by the rank before it, unless all hang.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType

from torch._C._distributed_c10d import Store

EVERY = 2.0  # seconds between two heartbeats
MISSED = 10  # heartbeats in a row
LEFT = 1 << 40  # added by a rank that ends normally, which is not watched any more


class Heartbeat:
    """While the block runs, this rank sends heartbeats and watches those of the next one.

    Time is counted in this rank's own heartbeats, so a suspended machine causes no false alarm.

    Args:
        store: the rendezvous store, on a separate connection, since a call may hang with the store's host.
        lost: called from a thread with the rank that sends no heartbeat. It must end the process, whose main thread is
            probably blocked.
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
        self._threads[0].join(self._every)  # it may hang, which does not matter at the end
        if kind is None and not self._threads[0].is_alive():
            with contextlib.suppress(RuntimeError):  # the store ended first
                self._store.add(self._own, LEFT)

    def _beat(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone: `_watch` then sees no heartbeat
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
