"""Pictures that a pull request's comment can show: text, and diagrams that GitHub and GitLab draw from text.

A comment shows images by their address alone, no embedded ones, and what a run uploads has no address without a login.
So the picture of the differences is drawn in characters, which every CI system, terminal and e-mail shows alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliprd.names import visible
from cliprd.report.charts.forest import points, spread

WIDTH = 41  # characters of the axis


def forest(differences: Mapping[str, Mapping[str, float]]) -> str:
    """Paired differences against a zero line, a line each: `├──●──┤` is the interval with its estimate.

    Args:
        differences: label → `{"value", "low", "high"}`, shares of 1.
    """
    ends = [0.0, *(entry[end] for entry in differences.values() for end in ("low", "high"))]
    low, high = min(ends), max(ends)
    margin = 0.04 * (high - low) or 0.01
    low, high = low - margin, high + margin
    names = {name: visible(name) for name in differences}
    label = max(map(len, names.values()), default=0)

    def column(value: float) -> int:
        return min(WIDTH - 1, max(0, round((value - low) / (high - low) * (WIDTH - 1))))

    zero = column(0)
    lines = []
    for name, entry in differences.items():
        first, middle, last = (column(entry[key]) for key in ("low", "value", "high"))
        cells = [" "] * WIDTH
        cells[zero] = "┆"
        cells[first : last + 1] = ["─"] * (last + 1 - first)
        if first <= zero <= last:
            cells[zero] = "┼"
        cells[first], cells[last], cells[middle] = "├", "┤", "●"
        lines.append(f"{names[name]:<{label}}  {''.join(cells)}  {spread(entry, sign=True)}")
    axis = [" "] * WIDTH
    axis[zero] = "0"
    return "\n".join([*lines, f"{'':<{label}}  {''.join(axis).rstrip()}"])


def bars(scores: Mapping[str, Any]) -> str:
    """A Mermaid chart of the scores per task in points: bars the candidate, the line the champion.

    Args:
        scores: as `scores.side_by_side` gives it.
    """
    tasks = list(scores["candidate"]["tasks"])
    champion = (scores["champion"] or {}).get("tasks", {})
    shown = [task for task in tasks if task in champion] if champion else tasks
    values = [_points(scores["candidate"]["tasks"][task]["value"]) for task in shown]
    reference = [_points(champion[task]["value"]) for task in shown] if champion else []
    top = min(100.0, max([1.0, *values, *reference]) * 1.1)
    lines = [
        "xychart-beta",
        f'    title "{"bars: candidate, line: champion" if reference else "candidate"}"',
        f"    x-axis [{', '.join(_quoted(shown))}]",
        f'    y-axis "points" 0 --> {top:.0f}',
        f"    bar [{', '.join(f'{value:.1f}' for value in values)}]",
    ]
    if reference:
        lines.append(f"    line [{', '.join(f'{value:.1f}' for value in reference)}]")
    return "\n".join(lines)


def _points(share: float) -> float:
    return float(points(share).replace("−", "-"))


def _quoted(names: Sequence[str]) -> list[str]:
    """Each name between quotes, with a space for what Mermaid may take for its own; no two alike: bars would merge."""
    plain = ["".join(c if c.isalnum() or c in " _-." else " " for c in visible(name)).strip() for name in names]
    if len(set(plain)) < len(plain) or not all(plain):
        plain = [f"{number} {name}".strip() for number, name in enumerate(plain, 1)]
    return [f'"{name}"' for name in plain]
