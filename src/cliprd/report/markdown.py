"""Escapes untrusted names and messages for Markdown.

GitHub and GitLab interpret more than CommonMark: bare URLs, `@name`, `#1`, `GH-1`, `owner/repo#1`, commit hashes,
`:emoji:`, `$mathematics$`. They search the rendered text, in which backslashes and entities are resolved, but not code.
So every unusual word is set as code.
"""

from __future__ import annotations

import re
from typing import Any

from cliprd.names import visible

# Letters with single joints, numbers, signs between words, or no ASCII at all; with brackets, quotes and stops around.
_PLAIN = re.compile(
    r"[(\[\"'“`]*"
    r"(?:[^\W_]+(?:[_'/-][^\W_]+)*|[+−-]?\d+(?:[.,]\d+)*%?|[-+=/]+|[^\x00-\x7f]+)?"
    r"[)\]\"'”`,.;:!?]*"
)
_LIVE = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{7,64}(?![0-9A-Za-z])|(?i:gh)-\d|[A-Z][A-Z0-9]+-\d)")
_AROUND = re.compile(r"([(\"'“]*)(.*?)([)\"'”,.;:!?]*)")
_BLOCK = re.compile(r"[-+=]+|\d{1,9}[.)]")  # at the start of a line: a list, or the underline of a heading
_RUNS = re.compile("`+")


def text(value: Any) -> str:
    """A name or message in a line or a table's cell, rendered as plain text.

    Ordinary words stay, brackets are escaped, and any other word becomes code, without punctuation around it.
    """
    words = visible(value).split()
    shown = [_word(word) for word in words]
    if words and _BLOCK.fullmatch(words[0]):
        shown[0] = re.sub(r"[-+=.)]", r"\\\g<0>", words[0])
    return " ".join(shown)


def _word(word: str) -> str:
    if _PLAIN.fullmatch(word) and not _LIVE.search(word):
        return re.sub(r"[\[\]`]", r"\\\g<0>", word)
    match = _AROUND.fullmatch(word)
    assert match is not None
    before, inside, after = match.groups()
    return before + literal(inside) + after


def literal(value: Any) -> str:
    """A name as code; bars are entities, since a bar in backticks would split a table's cell."""
    parts = [_span(part) for part in visible(value).split("|")]
    return "&#124;".join(parts) or "` `"


def _span(part: str) -> str:
    if not part:
        return ""
    ticks = "`" * (max(map(len, _RUNS.findall(part)), default=0) + 1)
    padding = " " if "`" in (part[0], part[-1]) or (part[0] == part[-1] == " " and part.strip()) else ""
    return f"{ticks}{padding}{part}{padding}{ticks}"


def fence(body: str, kind: str) -> str:
    """A code block, with a fence that no line of `body` can close."""
    ticks = "`" * max(3, max(map(len, _RUNS.findall(body)), default=0) + 1)
    return f"{ticks}{kind}\n{body}\n{ticks}"
