"""Records a rank's exception for its launcher, in torchrun's error file and format."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from cliprd import files
from cliprd.errors import CliprdError

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


@contextlib.contextmanager
def record_exception() -> Iterator[None]:
    """Record an exception that leaves the block in the launcher's error file, and re-raise it."""
    try:
        yield
    except Exception as error:
        _record(error)
        raise


def end_at_once(error: CliprdError) -> NoReturn:
    """Record `error` and exit with its code, from any thread: the main thread may be blocked."""
    if not _record(error):
        sys.stderr.write(f"cliprd: error: {error}\n")
        sys.stderr.flush()
    os._exit(error.exit_code)


def _record(error: Exception) -> bool:
    path = os.environ.get(ERROR_FILE)
    if path:
        files.write_json(Path(path), _content(error))
    return bool(path)


def _content(error: Exception) -> dict[str, Any]:
    """The error in torchrun's format, with the fields that cliprd's launcher reads under `cliprd`."""
    trace = "".join(traceback.format_exception(error))
    known = isinstance(error, CliprdError)
    text = str(error) if known else trace  # torchrun shows it under "traceback"
    return {
        "message": {"message": str(error), "extraInfo": {"timestamp": str(int(time.time())), "py_callstack": text}},
        "cliprd": {
            "rank": int(os.environ.get("RANK", "0")),
            "kind": type(error).__name__,
            "problem": error.problem if isinstance(error, CliprdError) else str(error),
            "remedy": error.remedy if isinstance(error, CliprdError) else "",
            "trace": "" if known else trace,
            "time": time.time(),
        },
    }
