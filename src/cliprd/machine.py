"""CPU limits, garbage collection and lifetime of this process."""

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
    """Number of CPUs this process may use: those of its affinity mask, at most its container's CPU limit.

    A container's limit is a share of CPU time, which the affinity mask does not show. A pod limited to 4 CPUs on a node
    of 64 that starts 64 threads is throttled.

    Args:
        cgroups: mount point of cgroups, version 2 or 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _limit(cgroups))))


def limit_threads() -> None:
    """Limit the threads of numeric libraries that are loaded later to `cores`."""
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
def gc_frozen() -> Iterator[None]:
    """Exclude all present objects from garbage collection: scanning the libraries' objects takes 0.2 s each time.

    Present garbage cycles are freed after the block.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def end_with_parent() -> None:
    """End this process when its parent dies (SIGKILL), as an orphan would continue training."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
