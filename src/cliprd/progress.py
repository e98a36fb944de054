"""Progress bars for people at a terminal, and lines for logs: a pod's, DVC's, CI's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from cliprd.names import visible

SECONDS_PER_LINE = 15.0


class _Lines:
    """Takes what tqdm would draw over and over in one line, and writes it as lines of its own."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        if (text := text.strip("\r\n ")) and text != self._last:  # tqdm draws the end twice
            self._last = text
            sys.stderr.write(visible(text) + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """`tqdm` with the same options; where stderr is no terminal, a line at most every 15 seconds and one at the end."""
    from tqdm import tqdm  # a tenth of the start of a command that shows no bar

    if "desc" in options:
        options["desc"] = visible(options["desc"])
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    options["leave"] = True  # with a delay: what is done before the first line is due says nothing
    return tqdm(
        iterable, file=_Lines(), ascii=True, mininterval=SECONDS_PER_LINE, maxinterval=2 * SECONDS_PER_LINE,
        delay=SECONDS_PER_LINE, **options,
    )  # fmt: skip
