"""Files of big folders in S3, brought here one at a time, checked, and kept as long as there is room."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cliprd.errors import ParamsError
from cliprd.storage.paths import Location, join, scratch
from cliprd.storage.transfer import download

LIMIT = 20 << 30  # bytes; CLIPRD_CACHE_BYTES overrides


@contextlib.contextmanager
def local_file(folder: Location, name: str, *, size: int, sha256: str) -> Iterator[Path]:
    """A file of a finished folder as a file on this machine: where it lies, or a copy that was checked as it came.

    The copy stays at least as long as the block runs; what is open or memory-mapped then can be read on for ever.

    Args:
        folder: as `resolve` gives it.
        name: of the file in it.
        size, sha256: as its manifest says; a copy is refused if it is otherwise.

    Raises:
        InputError: missing, damaged, forbidden. RetryableError: the network or the store failed.
    """
    if isinstance(folder, Path):
        yield folder / name
        return
    path = scratch("files") / f"{sha256}-{name.replace('/', '_')}"
    with _held(join(folder, name), path, size, sha256):
        yield path


def _held(url: str, path: Path, size: int, sha256: str) -> IO[bytes]:
    """The file, open and locked against removal by `_make_room`, here or in another process."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            file = path.open("rb")
            with contextlib.suppress(OSError):  # a file system without locks: an open file can still be read
                fcntl.flock(file, fcntl.LOCK_SH)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                os.utime(path)  # used last
                return file
            file.close()  # it was removed before the lock held
        _make_room(path.parent, size)
        download(url, path, size=size, sha256=sha256)


def _make_room(folder: Path, size: int) -> None:
    """Remove the files that were not used for longest, until `size` more bytes are within the limit."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    excess = sum(one for _, one, _ in found) + size - _limit()
    for _, one, path in sorted(found):
        if excess <= 0:
            return
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while somebody reads it or is fetching it
            path.unlink()
            excess -= one


def _limit() -> int:
    text = os.environ.get("CLIPRD_CACHE_BYTES") or str(LIMIT)
    if not text.isdecimal():
        raise ParamsError(f"CLIPRD_CACHE_BYTES = {text}: not a number of bytes.", f"For example {LIMIT}.")
    return int(text)
