"""Names and messages in Markdown: they are data, and come from whoever names a task, a shard or a branch.

GitHub and GitLab give a meaning to far more than CommonMark's marks: bare addresses, `@name`, `#1`, `GH-1`,
`owner/repo#1`, commit hashes, `:emoji:`, `$mathematics$`. They look for these in the rendered text, where a backslash
or an entity before a sign is gone; but never in code. So a word that is not an ordinary one is set as code.
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
_BLOCK = re.compile(r"[-+=]+|\d{1,9}[.)]")  # at the start of a line: a list, or what underlines a heading
_RUNS = re.compile("`+")


def text(value: Any) -> str:
    """A name or message within a line, or in a cell of a table: shows the same text, as nothing but text.

    Ordinary words stay as they are, brackets are escaped, and any other word becomes code, without the stops around it.
    """
    words = visible(value).split()
    shown = [_word(word) for word in words]
    if words and _BLOCK.fullmatch(words[0]):
        shown[0] = re.sub(r"[-+=.)]", r"\\\g<0>", words[0])
    return " ".join(shown)


def _word(word: str) -> str:
    if _PLAIN.fullmatch(word) and not _LIVE.search(word):
        return re.sub(r"[\[\]`]", r"\\\g<0>", word)
    around = _AROUND.fullmatch(word)
    assert around is not None
    before, inside, after = around.groups()
    return before + literal(inside) + after


def literal(value: Any) -> str:
    """A name as code, with its backticks; in a table too, which a bar within backticks would split."""
    parts = [_span(part) for part in visible(value).split("|")]
    return "&#124;".join(parts) or "` `"


def _span(part: str) -> str:
    if not part:
        return ""
    ticks = "`" * (max(map(len, _RUNS.findall(part)), default=0) + 1)
    room = " " if "`" in (part[0], part[-1]) or (part[0] == part[-1] == " " and part.strip()) else ""
    return f"{ticks}{room}{part}{room}{ticks}"


def fence(body: str, kind: str) -> str:
    """A block of code around lines of which none ends it, whatever names are in them."""
    ticks = "`" * max(3, max(map(len, _RUNS.findall(body)), default=0) + 1)
    return f"{ticks}{kind}\n{body}\n{ticks}"
