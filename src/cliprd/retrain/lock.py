"""Only one retraining at a time in a repository; across machines that is for CI's concurrency group to see to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cliprd.errors import EnvironmentError_

FILE = Path(".cliprd/retrain.lock")


@contextlib.contextmanager
def alone(file: Path = FILE) -> Iterator[None]:
    """Hold the lock; it goes with the process, however that ends.

    Raises:
        EnvironmentError_: another process holds it, or it cannot be made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise EnvironmentError_(f"{file} cannot be made: {error.strerror}.", "Fix its permissions.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise EnvironmentError_(f"A retraining is running here already: {holder}.", "Wait for its end.") from error
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        yield
    finally:
        os.close(handle)
