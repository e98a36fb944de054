"""Keeps Pillow and libtiff off stderr: what is wrong with a picture is a reason beside its key, not a line without one.

Both report twice: by an exception, which `images` turns into a reason, and by a warning, a log record or a line that C
code writes to file descriptor 2. The second is turned off for the whole process, as it is process-wide in the libraries
and pictures are decoded in threads.
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
MAPS = Path("/proc/self/maps")  # what libraries this process has loaded; Linux


def silence() -> None:
    """Once is enough; where the library is not found its lines stay."""
    Image.init()  # libtiff is loaded by then
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(OSError):
        for path in sorted(set(re.findall(r"/\S*/libtiff[^/\s]*\.so[^/\s]*$", MAPS.read_text(), re.MULTILINE))):
            library = ctypes.CDLL(path)  # the one that is loaded
            for name in HANDLERS:
                getattr(library, name)(None)
