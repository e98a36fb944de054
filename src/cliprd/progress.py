"""Progress bars on a terminal, and lines in logs of pods, DVC and CI."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from cliprd.names import visible

SECONDS_PER_LINE = 15.0


class _Lines:
    """Writes tqdm's updates of a bar as separate lines."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        if (text := text.strip("\r\n ")) and text != self._last:  # tqdm writes the last state twice
            self._last = text
            sys.stderr.write(visible(text) + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """`tqdm` with the same options; if stderr is no terminal, a line at most every 15 seconds and one at the end."""
    from tqdm import tqdm  # slow to import, and not needed by commands without a bar

    if "desc" in options:
        options["desc"] = visible(options["desc"])
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    options["leave"] = True  # with the delay, work that ends before the first line is due prints nothing
    return tqdm(
        iterable, file=_Lines(), ascii=True, mininterval=SECONDS_PER_LINE, maxinterval=2 * SECONDS_PER_LINE,
        delay=SECONDS_PER_LINE, **options,
    )  # fmt: skip
