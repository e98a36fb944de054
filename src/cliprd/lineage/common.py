"""Names and helpers shared by the modules of lineages. docs/formats.md describes `lineage.json`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMA = 1
NAME = "lineage.json"
# stage → facts that the lineage has elsewhere
ELSEWHERE = defaultdict(tuple, prepare=("sources",), cache=("shards", "made_with"))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, each with its path: `a.b.c`."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def short(value: Any) -> str:
    """A value as text; a sha256 is cut to twelve digits."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text
