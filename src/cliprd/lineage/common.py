"""Where a student comes from, in one file beside its weights: `lineage.json`, back to the raw shards (docs/formats.md).

`distill` writes it and `benchmark` adds the scores. It holds no times and no revision: equal work gives equal bytes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMA = 1
NAME = "lineage.json"
"""The code that matters: each module with all that it can reach (`identity.closure`)."""


# --- written by the stages


# --- read


# --- compared


# --- told
ELSEWHERE = defaultdict(tuple, prepare=("sources",), cache=("shards", "made_with"))  # facts told elsewhere in the tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, each with its path: `a.b.c`."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def short(value: Any) -> str:
    """A value as text; of a sha256 the first twelve digits."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text
