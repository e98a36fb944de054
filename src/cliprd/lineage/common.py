"""Names and helpers shared by the modules of lineages. docs/formats.md describes `lineage.json`."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

SCHEMA = 1
NAME = "lineage.json"
# stage → facts that the lineage has elsewhere
ELSEWHERE = defaultdict(tuple, prepare=("sources",), cache=("shards", "made_with"))


def short(value: Any) -> str:
    """A value as text; a sha256 is cut to twelve digits."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text
