"""Names and messages in Markdown: they are data, and come from whoever names a task, a shard or a branch."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """In one line, and so that no markup, mention or link of theirs comes alive in a comment, or breaks a table."""
    plain = " ".join(str(value).split())
    for sign in "\\`*_[]|#~":
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@\u200b")


def code(value: Any) -> str:
    """What stands between backticks; in a table too."""
    return str(value).replace("`", "'").replace("|", "\\|").replace("\n", " ")
