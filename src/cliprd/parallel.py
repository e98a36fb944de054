"""Work ahead in threads, results in order: pixels are decoded while the consumer is busy (Pillow frees the lock)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cliprd.machine import cores

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int | None = None, ahead: int | None = None
) -> Generator[R, None, None]:
    """`map(function, items)` computed in `workers` threads, at most `ahead` results in store.

    The consumer's own thread draws from `items`. An exception of `function` is raised where its result was due. Close
    the generator to stop the threads early.
    """
    workers = workers or cores()
    ahead = ahead or 4 * workers
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cliprd")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
