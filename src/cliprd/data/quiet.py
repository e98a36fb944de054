"""Silences Pillow's and libtiff's output on stderr.

Both report a problem twice: as an exception, which `images` turns into a rejection with a reason, and as a warning, a
log record or a line that C code writes to file descriptor 2, which names no picture. The latter are turned off for the
process, since the libraries' handlers are process-wide and pictures are decoded in threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
import warnings
from pathlib import Path

from PIL import Image

HANDLERS = ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler", "TIFFSetWarningHandlerExt")
MAPS = Path("/proc/self/maps")  # libraries that this process has loaded; Linux only


def silence() -> None:
    """Idempotent. Where libtiff is not found, its output stays."""
    Image.init()  # loads libtiff
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(OSError):
        for path in sorted(set(re.findall(r"/\S*/libtiff[^/\s]*\.so[^/\s]*$", MAPS.read_text(), re.MULTILINE))):
            library = ctypes.CDLL(path)  # a handle to the library that is already loaded
            for name in HANDLERS:
                getattr(library, name)(None)
