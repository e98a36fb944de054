"""Names and messages as people and programs see them: task, class and file names, captions, texts of libraries.

They come from whoever packs a data set or names a folder, so they may hold anything that a file system or a tar allows.
`visible` is the form for terminals, pages and reports; `report.markdown` builds on it; `key` is the form for names that
a program restricts (MLflow's metrics, parameters and artifact paths). All three leave ordinary names as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

MOST = 120  # characters of one part of a key; MLflow takes 250 for all of it
# Characters that are drawn as nothing although Unicode counts them as letters or marks (Default_Ignorable_Code_Point).
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\u2800")
_BLANK_RANGE = range(0xE0100, 0xE01F0)  # variation selectors of ideographs
_CURSOR = re.compile(r"(?:\x1b\[A|\n)*")  # what tqdm writes to reach another bar's line


def visible(value: Any) -> str:
    """In one line, in which every character is seen.

    Control and format characters (line ends, tabs, ANSI escapes, changes of direction, zero-width characters),
    unpaired surrogates (bytes of a file name that are no text) and unassigned characters become JSON's escapes:
    `\\n`, `\\u202e`. Joiners stay where a script or an emoji needs them. What is visible already is not changed, so
    calling it twice is the same as once.
    """
    text = str(value)
    if text.isprintable() and text.isascii():
        return text
    return "".join(char if _seen(char, text[i - 1 : i]) else json.dumps(char)[1:-1] for i, char in enumerate(text))


def _seen(char: str, before: str) -> bool:
    if char in "\u200c\u200d":  # after an Arabic letter, a vowel sign or an emoji they belong to the writing
        return bool(before) and (
            unicodedata.bidirectional(before) == "AL" or unicodedata.category(before) in ("Mn", "Mc", "So", "Sk")
        )
    if char in _BLANK or ord(char) in _BLANK_RANGE:
        return False
    return char.isprintable() or unicodedata.category(char) == "Zs"


def one_line(error: BaseException | str) -> str:
    """A library's text, which may have several lines, as one: white space between words is one space."""
    return visible(" ".join(str(error).split()))


def shortened(text: str, most: int = 60) -> str:
    """A user's text in one line of a message, cut to `most` characters."""
    text = one_line(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def key(name: str) -> str:
    """A name of `/`-separated parts that MLflow takes for metrics, parameters and artifacts, and file systems too.

    A part that holds anything else than letters, digits, `_`, `-`, `.`, `:` and spaces, or is longer than `MOST`, is
    cleaned and gets a digest of what it was: names that differ stay different.
    """
    return "/".join(map(_part, name.split("/")))


def _part(part: str) -> str:
    kept = re.sub(r"[^\w.\- :]", "_", visible(part))[:MOST]
    if kept == part and part.strip(" .") and part == part.strip(" "):
        return part
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{kept.strip(' .')}-{digest}"


class _Shown:
    """A stream to a terminal or log that shows control characters, whoever writes them.

    The layout of text stays: line ends, tabs, and what tqdm moves the cursor with.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        if not _CURSOR.fullmatch(text):
            head = "\r" if text.startswith("\r") else ""
            body = "\n".join("\t".join(map(visible, line.split("\t"))) for line in text[len(head) :].split("\n"))
            text = head + body
        with self._naming():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._naming():
            self._stream.flush()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # a full disk behind it, which has no name
            error.filename = error.filename or self._name
            raise

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def shown_streams() -> Iterator[None]:
    """Inside, stdout and stderr show control characters instead of sending them to the terminal.

    What the streams' encoding lacks is escaped too, instead of ending the command; a closed stream (`>&-`) takes all.
    """
    before = sys.stdout, sys.stderr
    open_ones = [stream or io.StringIO() for stream in before]
    for stream in open_ones:
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    names = "standard output", "standard error"
    sys.stdout, sys.stderr = (_Shown(*each) for each in zip(open_ones, names, strict=True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
