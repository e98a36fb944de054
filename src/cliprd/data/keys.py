"""The keys that are taken: an exact set in bounded memory, whatever their number.

A Python set of CC12M's keys takes more than a gigabyte. Here they lie in a table of SQLite: memory holds `CACHE` bytes
of it, the rest is in a file that is removed as soon as it is open, so that nothing is left of it when the process ends,
however it ends. Keys that come in order, as img2dataset's do, touch the end of the table alone.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = 2**22  # bytes; more is hardly quicker, as the system itself keeps the file in memory while it has room


class KeySet:
    """Which keys there are, and which source each is of.

    Args:
        folder: on the disk that has room for the file, some 40 bytes a key.
    """

    def __init__(self, folder: Path, *, cache: int = CACHE) -> None:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".keys.", suffix=".tmp")
        os.close(handle)
        # nolock: nobody else knows the file, and some network mounts have no locks
        self._table = sqlite3.connect(f"{Path(name).resolve().as_uri()}?nolock=1", uri=True, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{cache // 1024}"):
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, source INTEGER) WITHOUT ROWID")
        self._table.execute("CREATE TABLE contents (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        os.unlink(name)
        self._table.execute("BEGIN")  # never committed: pages are written only when the memory is full

    def __contains__(self, key: str) -> bool:
        return self.owner(key) is not None

    def owner(self, key: str) -> int | None:
        """The source that has this key."""
        with _as_os_errors():
            row = self._table.execute("SELECT source FROM keys WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def add_contents(self, digests: Iterable[bytes]) -> None:
        """Remember what samples hold."""
        with _as_os_errors():
            self._table.executemany("INSERT OR IGNORE INTO contents VALUES (?)", ((digest,) for digest in digests))

    def has_content(self, digest: bytes) -> bool:
        """Whether a sample that holds this was added."""
        with _as_os_errors():
            row = self._table.execute("SELECT 1 FROM contents WHERE digest = ?", (digest,)).fetchone()
        return row is not None

    def add(self, key: str, source: int) -> bool:
        """Add a key that was not there yet. Returns whether it was added."""
        return self.add_all((key,), source) == 1

    def add_all(self, keys: Iterable[str], source: int) -> int:
        """Add those that were not there yet. Returns how many were added."""
        rows = ((key, source) for key in keys)
        with _as_os_errors():
            return max(0, self._table.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", rows).rowcount)

    def forget(self, source: int) -> None:
        """Take out all keys of a source; every key is looked at."""
        with _as_os_errors():
            self._table.execute("DELETE FROM keys WHERE source = ?", (source,))

    def close(self) -> None:
        """Free memory and disk."""
        self._table.close()


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """SQLite's word for a full or broken disk as the error that writing to it would have raised."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(code, str(error)) from error
