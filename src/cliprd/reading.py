"""Reads files and checks that they are regular files and valid JSON."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading, without blocking on a pipe.

    Raises:
        OSError: it cannot be opened, or is no regular file; `path` is its `filename`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise FileExistsError(errno.EEXIST, "it is no regular file", str(path))


def parse_json(data: bytes | str) -> Any:
    """A JSON document.

    Raises:
        ValueError: it is invalid, or nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> Any:
    """The JSON document in a file.

    Raises:
        OSError: as `open_regular`. ValueError: as `parse_json`.
    """
    with open_regular(path) as file:
        return parse_json(file.read())
