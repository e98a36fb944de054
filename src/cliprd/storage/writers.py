"""Who writes a place in S3: a killed process's unfinished uploads are told from those of a live one.

S3 has neither locks nor owners of uploads. A writer puts `.writers/<random>.json`, which names its process, into the
place before it sends anything, and removes it at its end. An upload that was begun before the oldest note of a live
writer belongs to a dead one. Both times are the store's.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cliprd.errors import CliprdError
from cliprd.reading import parse_json
from cliprd.storage.paths import join
from cliprd.storage.streams import read_bytes, write_bytes
from cliprd.storage.transfer import abandon_uploads, entries, modified, remove

NOTES = ".writers"
SILENT = timedelta(days=1)  # a writer on another machine counts as dead after that


@contextlib.contextmanager
def writing(url: str) -> Iterator[None]:
    """Remove what killed writers have left of uploads into the folder `url`, and keep others from removing ours.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    mine = join(url, f"{NOTES}/{uuid.uuid4().hex}.json")
    write_bytes(mine, json.dumps(_process(os.getpid())).encode())
    try:
        if begun := modified(mine):
            abandon_uploads(url, before=min([begun, *_others(url, mine, begun)]))
        yield
    finally:
        with contextlib.suppress(CliprdError):  # the next writer removes it
            remove(mine)


def _others(url: str, mine: str, now: datetime) -> Iterator[datetime]:
    """Since when each other live writer is there; the notes of dead ones are removed."""
    for name in entries(join(url, NOTES)):
        note = join(url, f"{NOTES}/{name}")
        if note == mine or (since := modified(note)) is None:
            continue
        if now - since > SILENT or _dead(read_bytes(note)):
            remove(note)
        else:
            yield since


def _dead(note: bytes | None) -> bool:
    """Whether it is of a process of this machine that has ended."""
    try:
        writer = parse_json(note or b"{}")
        return bool(writer["machine"] == _machine() and writer != _process(int(writer["pid"])))
    except (ValueError, KeyError, TypeError):
        return False


def _process(pid: int) -> dict[str, Any]:
    """What a process is recognised by: a later one may get its number. `started` is None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        started = None if state in "ZX" else fields[18]
    except OSError:
        started = None
    return {"machine": _machine(), "pid": pid, "started": started}


def _machine() -> str:
    """Of all processes whose numbers can be compared: one boot, and one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {uuid.uuid4()}"  # no /proc: another's life cannot be told, so it counts as another machine's
