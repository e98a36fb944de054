"""Atomic replacement of files, and removal of temporary files that killed processes left.

A writer uses `.NAME.XXXX.tmp` beside the file, under a lock that the kernel releases when the process ends. Only
temporary files and folders without a lock are removed, so a live process's files are safe, also on another machine if
the network file system supports locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

SUFFIX = ".tmp"
ABANDONED = 7 * 86400  # seconds after which a temporary file is removed if the file system has no locks
_LOCK = ".lock"  # lock file of a temporary folder


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write a temporary file, fsync, and rename it to `path`: a reader sees the old or the complete new file.

    Text is UTF-8. Unpaired surrogates, by which Python represents undecodable file names, are written as escapes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = _locked_file(path)
    try:
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
        with os.fdopen(handle, mode, encoding=encoding, errors=errors) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # mkstemp's 0600 would keep other containers' users from reading
            os.replace(name, path)  # before close, which releases the lock
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename = str(path)  # an error of a full disk names no file
        raise


def _locked_file(path: Path) -> tuple[int, str]:
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{_stem(path.name)}.", suffix=SUFFIX)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process swept it before it was locked


def _stem(name: str) -> str:
    """A name short enough for a temporary file's prefix and suffix; file systems allow 255 bytes."""
    data = os.fsencode(name)
    return name if len(data) <= 200 else f"{os.fsdecode(data[:100])}-{hashlib.sha256(data).hexdigest()[:16]}"


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder `.PREFIX.XXXX.tmp` in `parent`, removed afterwards; removes those of killed processes first."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent.glob(f".{prefix}.*{SUFFIX}"))
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{prefix}.", suffix=SUFFIX) as name:
        handle = os.open(Path(name, "lock"), os.O_CREAT | os.O_RDWR, 0o644)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            os.rename(Path(name, "lock"), Path(name, _LOCK))  # locked before a sweep can find it
            (folder := Path(name, "content")).mkdir()
            yield folder
        finally:
            os.close(handle)


@contextlib.contextmanager
def alone(path: Path, busy: Callable[[str], Exception]) -> Iterator[None]:
    """Hold the lock whose file `path` is there as long as it is held; it goes with the process, however that ends.

    Args:
        busy: makes the error to raise where another process holds the lock, from what that process is.

    Raises:
        OSError: the file cannot be made.
    """
    handle = _lock(path, busy)
    try:
        with contextlib.suppress(OSError):  # a full disk: others then do not learn who holds it
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        yield
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):  # while it is ours: nobody else's is removed
                path.unlink()
        os.close(handle)


def _lock(path: Path, busy: Callable[[str], Exception]) -> int:
    """The lock on the file that is at the path now.

    Another process may have removed the file between our opening and locking it: then ours locks nothing that a third
    would meet, and the next one is opened.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                return handle  # a file system without locks (network mounts)
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise busy(holder) from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def sweep(paths: Iterable[Path]) -> None:
    """Remove the temporary files and folders that no process has locked."""
    for path in list(paths):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # another process swept it, or owns it
            if path.is_symlink():
                continue  # not written by cliprd
            if path.is_dir():
                _sweep_folder(path)
            else:
                _sweep_file(path, path)


def sweep_beside(path: Path) -> None:
    """Remove temporary files that killed writers of `path` left."""
    sweep(path.parent.glob(f".{glob.escape(_stem(path.name))}.*{SUFFIX}"))


def sweep_below(folder: Path) -> None:
    """Remove temporary files that killed writers left anywhere below `folder`."""
    sweep(folder.rglob(f".*{SUFFIX}"))


def _sweep_folder(path: Path) -> None:
    lock = path / _LOCK
    if not lock.exists():  # not created yet, or partly removed
        if time.time() - path.stat().st_mtime > 60:
            shutil.rmtree(path)
        return
    _sweep_file(lock, path)


def _sweep_file(lock: Path, target: Path) -> None:
    """Remove `target` if nobody holds `lock`."""
    handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            if time.time() - os.fstat(handle).st_mtime < ABANDONED:
                return
        if os.path.samestat(os.fstat(handle), lock.stat()):
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    finally:
        os.close(handle)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-able value."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Atomically write `value` as indented JSON; NaN is refused, since it is not JSON."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")
