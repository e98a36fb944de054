"""Attempts of a step in its pod, and what it writes for Kubernetes when it fails."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cliprd import signals
from cliprd.artifact.folder import fetch_folder
from cliprd.errors import CliprdError, RetryableError, of_system
from cliprd.names import one_line

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE = 2.0  # seconds; doubled each time, and spread over half to once and a half of it
TERMINATION_LOG = Path("/dev/termination-log")


def here(folder: str) -> Path:
    """A folder on this machine; one in S3, or that points there, is downloaded."""
    return attempts(lambda: fetch_folder(folder)).resolve()


def attempts(work: Callable[[], T]) -> T:
    """`work()`, tried again while its failure is one that may heal."""
    for attempt in range(1, ATTEMPTS):
        try:
            return work()
        except RetryableError as error:
            pause = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
            print(f"cliprd: {error} Attempt {attempt} of {ATTEMPTS}; next in {pause:.0f} s.", file=sys.stderr)
            time.sleep(pause)
    return work()


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """A failure inside the block is one line, also for Kubernetes, and ends the process with its exit code."""
    with signals.raised():  # also while a failure is reported
        try:
            yield
        except KeyboardInterrupt as stop:
            _report(signals.line(stop))
            raise SystemExit(signals.exit_code(stop)) from None
        except (CliprdError, OSError) as error:
            known = of_system(error) if isinstance(error, OSError) else error
            if known is None:
                raise
            _report(str(known))
            raise SystemExit(known.exit_code) from None


def _report(line: str) -> None:
    line = one_line(line)
    print(f"cliprd: error: {line}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # in a pod: Kubernetes shows it as the reason, and Kubeflow at the step
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(line[:4000], encoding="utf-8")
