"""Copies on this machine of what lies in S3: checked files of big folders, single files, folders without a manifest."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cliprd.errors import InputError, ParamsError
from cliprd.storage import s3
from cliprd.storage.paths import Location, below, is_s3, join, label, parse, scratch
from cliprd.storage.transfer import download, entries, head

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


def fetch_file(location: str) -> Path:
    """A single file on this machine: a local one as it is, there or not; of one in S3 a copy of its present version.

    Raises:
        Missing: it is not in S3. InputError: forbidden. RetryableError: the network or the store failed.
    """
    if not is_s3(location):
        return Path(location)
    there = s3.retrying(lambda: head(location))
    path = scratch("objects", label(location + there.etag)) / location.rsplit("/", 1)[1]
    if not (path.is_file() and path.stat().st_size == there.size):
        download(location, path, size=there.size)
    return path


def fetch_tree(location: Location, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """A folder without a manifest on this machine, as it is now; of one in S3 all folders, but only the files `wanted`.

    Raises:
        InputError: there is nothing. RetryableError: the network or the store failed, or it was changed meanwhile.
    """
    place = parse(location)
    if isinstance(place, Path):
        return place
    found = entries(place)
    if not found:
        raise InputError(f"{place} does not exist.", "Check the address.")
    version = hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()
    folder = scratch("trees", label(place + version)) / place.rsplit("/", 1)[1]
    for name, entry in found.items():
        path = below(folder, name)
        if not wanted(name):
            path.parent.mkdir(parents=True, exist_ok=True)  # what else there is, for messages
        elif not (path.is_file() and path.stat().st_size == entry.size):
            download(join(place, name), path, version=entry)
    return folder
