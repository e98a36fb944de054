"""What this process may use of the machine it runs on, and how long it may live there."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def cores(cgroups: Path = CGROUPS) -> int:
    """Processors this process may use: those it may run on, and of them no more than its container's CPU limit.

    A limit is a share of time on all processors of the node, which an affinity mask says nothing of. A pod limited to
    4 on a node of 64 that starts 64 threads spends its share on having them wait for each other.

    Args:
        cgroups: where the kernel tells the limit, version 2 or 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _limit(cgroups))))


def limit_threads() -> None:
    """Have the libraries of numbers that are loaded from now on start no more threads than `cores`."""
    if cores() < (os.cpu_count() or 1):
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(cores()))


def _limit(cgroups: Path) -> float:
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroups / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return math.inf


@contextlib.contextmanager
def collector_spared() -> Iterator[None]:
    """Have Python's collector of cycles pass over all that there is now: the libraries' objects take it 0.2 s a time.

    Cycles that are garbage already stay until the end.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def end_with_parent() -> None:
    """Have this process ended when the one that launched it dies without a word (SIGKILL): an orphan would train on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
