"""An exact set of sample keys in bounded memory.

A Python set of CC12M's keys takes more than a gigabyte. This one is an SQLite table: `CACHE` bytes of it are in memory,
the rest is in a file that is unlinked as soon as it is open, so that a killed process leaves nothing behind. Keys that
arrive in order, as img2dataset's do, only touch the end of the table.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = 2**22  # bytes; more is hardly faster, since the page cache holds the file as well


class KeySet:
    """The keys in use, with the number of each key's source.

    Args:
        folder: where the table's file is created; it takes about 40 bytes a key.
    """

    def __init__(self, folder: Path, *, cache: int = CACHE) -> None:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".keys.", suffix=".tmp")
        os.close(handle)
        # nolock: no other process opens this file, and some network mounts have no locks
        self._table = sqlite3.connect(f"{Path(name).resolve().as_uri()}?nolock=1", uri=True, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{cache // 1024}"):
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, source INTEGER) WITHOUT ROWID")
        self._table.execute("CREATE TABLE contents (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        os.unlink(name)
        self._table.execute("BEGIN")  # never committed: pages are written only when the cache is full

    def __contains__(self, key: str) -> bool:
        return self.owner(key) is not None

    def owner(self, key: str) -> int | None:
        """Number of the source that uses this key, or None."""
        with _as_os_errors():
            row = self._table.execute("SELECT source FROM keys WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def add_contents(self, digests: Iterable[bytes]) -> None:
        """Add digests of samples' contents."""
        with _as_os_errors():
            self._table.executemany("INSERT OR IGNORE INTO contents VALUES (?)", ((digest,) for digest in digests))

    def has_content(self, digest: bytes) -> bool:
        """Whether a sample with this content digest was added."""
        with _as_os_errors():
            row = self._table.execute("SELECT 1 FROM contents WHERE digest = ?", (digest,)).fetchone()
        return row is not None

    def add(self, key: str, source: int) -> bool:
        """Add a key if it is new. Returns whether it was added."""
        return self.add_all((key,), source) == 1

    def add_all(self, keys: Iterable[str], source: int) -> int:
        """Add the keys that are new. Returns their number."""
        rows = ((key, source) for key in keys)
        with _as_os_errors():
            return max(0, self._table.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", rows).rowcount)

    def forget(self, source: int) -> None:
        """Remove all keys of a source; scans the table."""
        with _as_os_errors():
            self._table.execute("DELETE FROM keys WHERE source = ?", (source,))

    def close(self) -> None:
        """Release memory and disk space."""
        self._table.close()


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn SQLite's errors about a full or failing disk into the OSError that a plain write would raise."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(code, str(error)) from error
