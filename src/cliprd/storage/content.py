"""What identifies the content of files: sha256 of those here, ETag and size of objects in S3.

A file is hashed once. Its sha256 is then believed while inode, size, time of change (mtime) and time of the inode's
change (ctime) are as they were; nobody can set the ctime back, so a file of the same size whose mtime was restored is
hashed again. A ctime younger than `SETTLED` seconds is not believed yet: another change may get the same one.

`fingerprints` remembers across commands. What every command must verify, `sha256` remembers within one, its child
processes included (`verified`, `learn`).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliprd import progress
from cliprd.errors import CliprdError, InputError, RetryableError
from cliprd.storage.paths import is_s3, names_object, scratch
from cliprd.storage.s3 import Missing
from cliprd.storage.transfer import etag, versions

SETTLED = 2.0  # seconds; the coarsest time stamps of file systems in use
KEPT = 60  # days that the sha256 of a file is remembered after it was last asked for
_ATTEMPTS = 3  # at a file that is written meanwhile
_FLUSH = 1.0  # seconds of hashing that a killed process loses
_VERIFIED: dict[str, tuple[str, str]] = {}  # absolute path → stamp and sha256, of this command


def sha256(path: Path) -> str:
    """sha256 (hex) of a file here, which is read once in a command while its stamp stays the same.

    Raises:
        InputError: it cannot be read. RetryableError: it is written all the while.
    """
    place = os.path.abspath(path)
    known = _VERIFIED.get(place)
    if known is None or known[0] != _stamp(place):
        digest, stamp = _hashed(place)
        known = _VERIFIED[place] = (stamp, digest)
    return known[1]


def verified() -> dict[str, tuple[str, str]]:
    """What `sha256` has found, for a child process to `learn`."""
    return dict(_VERIFIED)


def learn(known: Mapping[str, Sequence[str]]) -> None:
    """Believe what a parent process of the same command has `verified`, while the files stay the same."""
    _VERIFIED.update({place: (stamp, digest) for place, (stamp, digest) in known.items()})


def fingerprints(places: Iterable[str], *, absent: bool = False) -> dict[str, str]:
    """Place → what identifies its content; in the order given, each once.

    Args:
        places: files here and objects in S3.
        absent: leave out what does not exist, in place of raising.

    Raises:
        InputError: one is missing, or not a file, or cannot be read. RetryableError: the store failed, or a file here
            is written all the while.
    """
    wanted = list(dict.fromkeys(places))
    found = _here([place for place in wanted if not is_s3(place)], absent=absent)
    found |= _in_s3([place for place in wanted if is_s3(place)], absent=absent)
    return {place: found[place] for place in wanted if place in found}


def _in_s3(places: list[str], *, absent: bool) -> dict[str, str]:
    """One listing answers for all objects of a folder."""
    if absent:
        places = [place for place in places if names_object(place)]
    folders = Counter(place[: place.rfind("/") + 1] for place in places)
    listed: dict[str, str] = {}
    whole = {folder for folder, count in folders.items() if count > 1}
    for folder in whole:
        listed |= {f"{folder}{name}": version for name, version in versions(folder).items()}
    found = {}
    for place in places:
        try:
            version = listed.get(place) or ("" if place[: place.rfind("/") + 1] in whole and absent else etag(place))
        except Missing:
            if not absent:
                raise
            version = ""
        if version:
            found[place] = version
    return found


def _here(paths: list[str], *, absent: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    changed = []
    memory = _Memory()
    try:
        for path in paths:
            if os.path.isfile(path):
                known = memory.recall(path, _stamp(path))
                found |= {path: known} if known else {}
                changed += [] if known else [path]
            elif not absent:
                raise Missing(f"{path} does not exist, or is not a file.", "Check the path.")
        for path in progress.bar(changed, desc="hash", unit="file") if changed else ():
            found[path], stamp = _hashed(path)
            memory.keep(path, stamp, found[path])
    finally:
        memory.close()
    return found


def _hashed(path: str) -> tuple[str, str]:
    """sha256, and the stamp of the content that has it; empty while that may still change unseen."""
    for _ in range(_ATTEMPTS):
        before, now = _stamp(path), time.time()
        try:
            with Path(path).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
        if _stamp(path) == before:
            settled = os.stat(path).st_ctime < now - SETTLED
            return sha256, before if settled else ""
    raise RetryableError(f"{path} is being written.", "Try again when that is done.")


def _stamp(path: str) -> str:
    try:
        state = os.stat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    return f"{state.st_ino} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


class _Memory:
    """sha256 by path and stamp, in a table that all processes of a user share. Without it files are hashed again."""

    def __init__(self) -> None:
        self._today = int(time.time() // 86400)
        self._new: list[tuple[bytes, str, str, int]] = []
        self._renewed = False
        self._flushed = time.monotonic()
        self._table: sqlite3.Connection | None = None
        try:
            self._file = scratch("fingerprints") / "files.sqlite"
            self._table = sqlite3.connect(self._file, timeout=10, isolation_level=None)
        except (CliprdError, sqlite3.Error) as error:
            self._without(error)
        columns = "path BLOB PRIMARY KEY, stamp TEXT, sha256 TEXT, used INTEGER"
        self._ask(f"CREATE TABLE IF NOT EXISTS files ({columns}) WITHOUT ROWID")

    def recall(self, path: str, stamp: str) -> str | None:
        """sha256 of the file, if it is known by this stamp."""
        rows = self._ask("SELECT stamp, sha256, used FROM files WHERE path = ?", (_key(path),))
        if not rows or rows[0][0] != stamp:
            return None
        if rows[0][2] < self._today:
            self._renewed = True
            self.keep(path, stamp, rows[0][1])
        return str(rows[0][1])

    def keep(self, path: str, stamp: str, sha256: str) -> None:
        """Remember it; an empty stamp is none."""
        if stamp:
            self._new.append((_key(path), stamp, sha256, self._today))
        if time.monotonic() - self._flushed > _FLUSH:
            self._flush()

    def close(self) -> None:
        """Write what is new, and forget what was not asked for in `KEPT` days."""
        self._flush()
        if self._renewed:
            self._ask("DELETE FROM files WHERE used < ?", (self._today - KEPT,))
        if self._table is not None:
            self._table.close()

    def _flush(self) -> None:
        if self._new:
            self._ask("BEGIN IMMEDIATE")
            for row in self._new:
                self._ask("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)
            self._ask("COMMIT")
        self._new.clear()
        self._flushed = time.monotonic()

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        if self._table is None:
            return []
        try:
            return self._table.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._without(error)
            return []

    def _without(self, error: Exception) -> None:
        """Go on without the table; one that is damaged is removed, for the next process to begin another."""
        print(f"cliprd: warning: sha256 of files are not remembered: {error}", file=sys.stderr)
        if self._table is not None:
            self._table.close()
            self._table = None
            if not isinstance(error, sqlite3.OperationalError):
                self._file.unlink(missing_ok=True)


def _key(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).digest()[:16]
