"""What a rank that fails leaves for whoever launched it, in the file that torchrun names and in torchrun's format."""

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
def handing_over() -> Iterator[None]:
    """Whatever ends the block is written down for whoever launched this process, then goes on its way."""
    try:
        yield
    except Exception as error:
        _write(error)
        raise


def end_at_once(error: CliprdError) -> NoReturn:
    """Hand `error` over and end this process from any thread, with its exit code: the main one cannot be woken."""
    if not _write(error):
        sys.stderr.write(f"cliprd: error: {error}\n")
        sys.stderr.flush()
    os._exit(error.exit_code)


def _write(error: Exception) -> bool:
    path = os.environ.get(ERROR_FILE)
    if path:
        files.write_json(Path(path), _told(error))
    return bool(path)


def _told(error: Exception) -> dict[str, Any]:
    """An error in torchrun's own format, and in ours beside it."""
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
