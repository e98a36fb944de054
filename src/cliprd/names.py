"""Safe forms of untrusted text: task, class and file names, captions, messages of libraries.

They come from data sets and folders, so they may contain any character that a file system or a tar allows. `visible` is
the form for terminals, pages and reports; `report.markdown` builds on it; `key` is the form for restricted names
(MLflow's metrics, parameters and artifact paths). All three leave ordinary names unchanged.
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

MOST = 120  # characters of one part of a key; MLflow allows 250 in total
# Characters rendered as blank although Unicode classes them as letters or marks (Default_Ignorable_Code_Point).
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\u2800")
_BLANK_RANGE = range(0xE0100, 0xE01F0)  # variation selectors of ideographs
_CURSOR = re.compile(r"(?:\x1b\[A|\n)*")  # tqdm's cursor movements between bars


def visible(value: Any) -> str:
    """The text in one line without invisible characters.

    Control and format characters (line ends, tabs, ANSI escapes, changes of direction, zero-width characters),
    unpaired surrogates (undecodable bytes of a file name) and unassigned characters become JSON's escapes: `\\n`,
    `\\u202e`. Joiners that a script or an emoji needs are kept. Idempotent.
    """
    text = str(value)
    if text.isprintable() and text.isascii():
        return text
    return "".join(char if _seen(char, text[i - 1 : i]) else json.dumps(char)[1:-1] for i, char in enumerate(text))


def _seen(char: str, before: str) -> bool:
    if char in "\u200c\u200d":  # joiners are part of the writing after an Arabic letter, a vowel sign or an emoji
        return bool(before) and (
            unicodedata.bidirectional(before) == "AL" or unicodedata.category(before) in ("Mn", "Mc", "So", "Sk")
        )
    if char in _BLANK or ord(char) in _BLANK_RANGE:
        return False
    return char.isprintable() or unicodedata.category(char) == "Zs"


def one_line(error: BaseException | str) -> str:
    """A possibly multi-line text of a library in one line, with white space collapsed."""
    return visible(" ".join(str(error).split()))


def shortened(text: str, most: int = 60) -> str:
    """A user's text in one line of a message, cut to `most` characters."""
    text = one_line(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def key(name: str) -> str:
    """A name of `/`-separated parts that is valid for MLflow's metrics, parameters and artifacts, and for file systems.

    A part with other characters than letters, digits, `_`, `-`, `.`, `:` and spaces, or longer than `MOST`, is cleaned
    and gets a digest of the original appended, so that different names stay different.
    """
    return "/".join(map(_part, name.split("/")))


def _part(part: str) -> str:
    kept = re.sub(r"[^\w.\- :]", "_", visible(part))[:MOST]
    if kept == part and part.strip(" .") and part == part.strip(" "):
        return part
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{kept.strip(' .')}-{digest}"


class _Shown:
    """A stream to a terminal or log that escapes control characters.

    Line ends, tabs and tqdm's cursor movements are kept.
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
        except OSError as error:  # such an error, of a full disk, names no file
            error.filename = error.filename or self._name
            raise

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def shown_streams() -> Iterator[None]:
    """Within the block, stdout and stderr escape control characters.

    Characters that the streams' encoding lacks are escaped too; output to a closed stream (`>&-`) is discarded.
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
