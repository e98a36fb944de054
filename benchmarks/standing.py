"""Where cliprd stands beside its peers, from the committed results: the table of docs/performance.md and its picture.

    python benchmarks/standing.py [--plot FILE]

Measures nothing. Every row is one figure of one result file, as "so many times as good as the peer": times as fast, or
times as little memory. `tools/docs_check.py` holds the table in docs/performance.md to this one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PLOT = Path(__file__).parents[1] / "docs" / "speed.svg"


@dataclass(frozen=True)
class Goal:
    """One figure that cliprd is held to.

    Attributes:
        what: is compared. peer: with what.
        wanted: times as good at least.
        result: its file's name. row: the fields that tell its row; of several rows the best peer's counts.
        field: the ratio; `inverse` where less is better.
    """

    what: str
    peer: str
    wanted: float
    result: str
    row: Mapping[str, Any]
    field: str
    inverse: bool = False

    def reached(self) -> float:
        """From the result file.

        Raises:
            SystemExit: it has no such row.
        """
        rows = json.loads((RESULTS / f"{self.result}.json").read_text(encoding="utf-8"))["rows"]
        found = [row[self.field] for row in rows if all(_fits(row.get(k), v) for k, v in self.row.items())]
        if not found:
            raise SystemExit(f"{self.result}.json has no row with {dict(self.row)}: run its benchmark again")
        return 1 / max(found) if self.inverse else min(found)


OFFICIAL, TIME, MEMORY = "the official CLIP-RD code", "time_of_official", "memory_of_official"
N4096, N8192 = ({"side": "chunks of 256", "n": n} for n in (4096, 8192))
GOALS = (
    Goal("a training step, ViT-B/16 → ViT-T/16, batch 32", OFFICIAL, 6, "step", {"side": "cliprd"}, "wall_ratio"),
    Goal("losses, N = 4,096: time", OFFICIAL, 2, "losses_official", N4096, TIME, True),
    Goal("losses, N = 4,096: memory", OFFICIAL, 8, "losses_official", N4096, MEMORY, True),
    Goal("losses, N = 8,192: time", OFFICIAL, 2, "losses_official", N8192, TIME, True),
    Goal("losses, N = 8,192: memory", OFFICIAL, 8, "losses_official", N8192, MEMORY, True),
    Goal("caching a ViT-B/32 teacher", "clip-retrieval", 1.3, "cache_clip_retrieval", {"path": "clip-retrieval, *"},
         "disk_to_disk_against_it"),
    Goal("caching a ViT-B/32 teacher", "its bare forward pass", 0.95, "cache_clip_retrieval", {"path": "disk to disk"},
         "throughput_ratio"),
    Goal("caching the demo's teacher", "its bare forward pass", 0.95, "cache", {"path": "disk to disk"},
         "throughput_ratio"),
    Goal("loading, 256 pixels", "open_clip", 2.5, "loading",
         {"loader": "cliprd", "shorter_side": 256, "quality": 95}, "ratio"),
    Goal("loading, 512 pixels", "open_clip", 2.5, "loading",
         {"loader": "cliprd", "shorter_side": 512, "quality": 95}, "ratio"),
    Goal("zero-shot, the demo's student", "CLIP_benchmark", 1.5, "zeroshot", {"task": "all"}, "speedup_ratio"),
    Goal("zero-shot, ViT-B/32", "CLIP_benchmark", 1.5, "zeroshot_vit_b32", {"task": "all"}, "speedup_ratio"),
)  # fmt: skip


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return bool(value == wanted)


def table() -> str:
    """As Markdown; what is not reached is in bold."""
    lines = ["| what | against | wanted | reached |", "|---|---|---:|---:|"]
    for goal in GOALS:
        reached = goal.reached()
        said = f"{reached:.2f} ×" if reached < 1 else f"{reached:.1f} ×"
        said = said if reached >= goal.wanted else f"**{said}**"
        lines.append(f"| {goal.what} | {goal.peer} | {goal.wanted:g} × | {said} |")
    return "\n".join(lines) + "\n"


def plot(path: Path) -> None:
    """Write the bars."""
    from _plot import bars

    names = [f"{goal.what}, against {goal.peer.removeprefix('the ').removesuffix(' code')}" for goal in GOALS]
    marks: Sequence[tuple[str, float, float]] = [
        (name, goal.reached(), goal.wanted) for name, goal in zip(names, GOALS, strict=True)
    ]
    bars(path, "times as fast as the peer, or as little memory; the line is what was wanted", marks)


def main() -> None:
    """Print and draw."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--plot", type=Path, default=PLOT, metavar="FILE")
    options = arguments.parse_args()
    plot(options.plot)
    print(table(), end="")


if __name__ == "__main__":
    main()
