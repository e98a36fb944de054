"""What a run has to tell, in order, on the disk until the server has acknowledged it.

A spool is a file of JSON lines. Its writer is the training, which never waits for anything but this file; its reader is
the thread that sends. Acknowledged lines are cut off whenever all are, so the file is empty while the server keeps up.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cliprd.files import atomic_write
from cliprd.reading import parse_json

Entry = Mapping[str, Any]
COMPACT = 4 * 2**20  # bytes of acknowledged lines that are cut off although more follow


def entries(path: Path) -> Iterator[Entry]:
    """All entries in a spool that nobody writes; a line that a kill has cut is none."""
    if path.is_file():
        with path.open("rb") as file:
            yield from _parsed((line for line in file if line.endswith(b"\n")), path)


def _parsed(lines: Iterable[bytes], path: Path) -> Iterator[Entry]:
    """The entries of lines; damaged ones are left out, with one line on stderr."""
    damaged = 0
    for line in lines:
        if (entry := _entry(line)) is None:
            damaged += 1
        else:
            yield entry
    if damaged:
        print(f"cliprd: warning: {path} is damaged: going on without {damaged} of its lines.", file=sys.stderr)


def _entry(line: bytes) -> Entry | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step", 0), int) else None


class Spool:
    """The spool of a training that runs.

    Args:
        path: its file; what an earlier process has left in it comes first.

    Attributes:
        last_step: the highest step in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = path.open("a+b")
        self._sent = 0  # bytes acknowledged
        self.last_step = max((entry.get("step", 0) for entry in _parsed(self._whole(), path)), default=0)

    def _whole(self) -> Iterator[bytes]:
        """The lines found at the start; cuts a half line off, so that the next one begins on its own."""
        self._file.seek(0)
        end = 0
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            yield line
        self._file.truncate(end)

    def append(self, entry: Entry) -> None:
        """Add an entry; those of a step that is here already are left out: a resumed training makes them again."""
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            step = entry.get("step")
            if step is not None:
                if step <= self.last_step:
                    return
                self.last_step = step
            self._file.write(line)
            self._file.flush()

    def read(self, most: int) -> tuple[list[Entry], int]:
        """The first entries that are not acknowledged, and the number to acknowledge them by."""
        os.fsync(self._file.fileno())  # here, and not where the training would wait for it
        found: list[Entry] = []
        with self.path.open("rb") as file:
            file.seek(self._sent)
            end = self._sent
            while len(found) < most and (line := file.readline()).endswith(b"\n"):
                found += [entry] if (entry := _entry(line)) is not None else []
                end += len(line)
        return found, end

    def acknowledge(self, end: int) -> None:
        """All up to `end` (of `read`) is on the server."""
        with self._lock:
            self._sent = end
            if os.fstat(self._file.fileno()).st_size == end:
                self._file.truncate(0)
                self._sent = 0
            elif end > COMPACT:
                with self.path.open("rb") as old, atomic_write(self.path) as new:
                    old.seek(end)
                    new.write(old.read())
                self._file.close()
                self._file = self.path.open("a+b")
                self._sent = 0

    @property
    def left(self) -> int:
        """How many entries are not acknowledged."""
        with self.path.open("rb") as file:
            file.seek(self._sent)
            return sum(1 for line in file if line.endswith(b"\n"))

    def close(self, *, remove: bool) -> None:
        """No more entries; `remove`: all were acknowledged."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
