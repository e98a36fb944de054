"""Retries of a step in its pod, and what it reports to Kubernetes when it fails."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from cliprd import signals
from cliprd.artifact.folder import fetch_folder
from cliprd.errors import CliprdError, RetryableError, of_system
from cliprd.names import one_line

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE = 2.0  # seconds; doubled each time, and spread over half to once and a half of it
TERMINATION_LOG = Path("/dev/termination-log")


def local_folder(folder: str) -> Path:
    """A folder on this machine; one in S3, or that points there, is downloaded."""
    return with_retries(fetch_folder, folder).resolve()


def with_retries(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call(*args, **kwargs)`, repeated up to `ATTEMPTS` times while its error is retryable."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call(*args, **kwargs)
        except RetryableError as error:
            pause = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
            print(f"cliprd: {error} Attempt {attempt} of {ATTEMPTS}; next in {pause:.0f} s.", file=sys.stderr)
            time.sleep(pause)
    return call(*args, **kwargs)


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """An error inside the block becomes one line, also for Kubernetes, and ends the process with its exit code."""
    with signals.raised():  # also while an error is reported
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


def _report(message: str) -> None:
    line = one_line(message)
    print(f"cliprd: error: {line}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # in a pod: Kubernetes shows it as the reason, and Kubeflow at the step
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(line[:4000], encoding="utf-8")
