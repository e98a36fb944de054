"""Where a student comes from, in one file beside its weights: `lineage.json`, back to the raw shards.

    {"schema": 1, "stage": "distill", "params": {...}, "facts": {...},
     "inputs": {"shards": {"stage": "prepare", "fingerprint", "params", "facts",
                           "sources": [{"name", "fingerprint", "samples"}]},      # a raw tar, a table, or a folder each
                "cache": {"stage": "cache", "fingerprint", "params", "facts",
                          "inputs": {"teacher": {"stage": "teacher", "fingerprint", "params", "inputs", "facts"}}}},
     "scores": {TASK: {PROTOCOL: {METRIC: value}}}, "tasks": {TASK: fingerprint}}         # in a benchmark's folder only

`distill` writes it and `benchmark` adds the scores. It holds no times and no revision: equal work gives equal bytes.
What changes with the code alone is in `volatile/lineage-code.json`, and joined with the rest where it is read:

    {"code": version, "code_parts": {"data": sha256, "models", "teacher_cache", "losses", "distill", "benchmark"},
     "inputs": {"shards": {"code"}, "cache": {"code"}}}
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMA = 1
NAME = "lineage.json"
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
