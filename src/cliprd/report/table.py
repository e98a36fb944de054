"""The comparison as a Markdown table, for README, pull request or terminal, and the sentences that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliprd.report.aggregate import verdict
from cliprd.report.charts.forest import points, spread

METRICS = {
    "acc1": "top-1 accuracy",
    "mean_r1": "R@1, mean of both directions",
    "mean_average_precision": "mean average precision",
    "text_acc": "share of images whose right caption is nearest",
}
SHORT_METRICS = {"acc1": "top-1", "mean_r1": "R@1", "mean_average_precision": "mAP", "text_acc": "accuracy"}


def markdown_table(comparison: Mapping[str, Any], protocol: str | None = None) -> str:
    """Models × tasks in points, the teacher on top, ending with the notes that a reader needs to trust it.

    Args:
        comparison: content of comparison.json.
        protocol: `standard` or `paper`; None takes `comparison["protocol"]`.
    """
    protocol = protocol or comparison["protocol"]
    block = comparison["protocols"][protocol]
    reference = comparison["reference"]
    tasks = list(comparison["tasks"])
    head = ["model", "mean", f"Δ to {reference}", "of teacher", *tasks]
    rows = [["**teacher**", spread(block["teacher"]["mean"]), "", "", *_cells(block["teacher"], tasks)]]
    for method in comparison["methods"]:
        entry = block["methods"][method]
        difference = spread(entry["difference"]["mean"], sign=True) if "difference" in entry else "reference"
        share = f"{entry['kept']['value']:.0%}" if entry["kept"] else "–"
        name = f"**{method}**" if method == block["best"] else method
        rows.append([name, spread(entry["mean"]), difference, share, *_cells(entry, tasks)])
    lines = [_line(head), "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|", *map(_line, rows)]
    return "\n".join([*lines, "", *notes(comparison, protocol)]) + "\n"


def notes(comparison: Mapping[str, Any], protocol: str) -> list[str]:
    """What the figures are and what their intervals cover, a sentence or two a line."""
    confidence = f"{comparison['confidence']:.0%}"
    examples = ", ".join(
        f"{name} {METRICS.get(task['metric'], task['metric'])} (n = {task['examples']:,})"
        for name, task in comparison["tasks"].items()
    )
    lines = [
        f"Points (%), protocol `{protocol}`, best in bold; brackets: {confidence} bootstrap intervals, "
        f"{comparison['resamples']:,} resamples; Δ is paired over the same examples.",
        coverage(comparison),
        f"Scores: {examples}.",
    ]
    chances = [task["chance"] for task in comparison["tasks"].values()]
    low, high = min(chances), max(chances)
    lines.append(f"Guessing would give {points(low)} to {points(high)} points, depending on the task.")
    if comparison.get("left_out"):
        lines.append(f"Left out, not scored: {left_out(comparison['left_out'])}.")
    return lines


def left_out(reasons: Mapping[str, str]) -> str:
    """Tasks that were not scored, each with its reason."""
    return "; ".join(f"{name} ({why})" for name, why in sorted(reasons.items()))


def coverage(comparison: Mapping[str, Any]) -> str:
    """What the intervals cover, said plainly."""
    seeds = comparison["seeds"]
    if len(seeds) == 1:
        return (
            f"One seed ({seeds[0]}): the intervals cover the choice of test examples only, not training noise; "
            "another seed may move a method by more than its interval."
        )
    few = " (few seeds: such intervals tend to be too narrow)" if len(seeds) < 5 else ""
    return f"{len(seeds)} seeds: the intervals cover the choice of test examples and training noise{few}."


def headline(comparison: Mapping[str, Any], protocol: str) -> str:
    """Who won and by how much, as strongly as the interval allows and no more."""
    block = comparison["protocols"][protocol]
    best, reference = block["best"], comparison["reference"]
    entry = block["methods"][best]
    once = ", in one training each" if len(comparison["seeds"]) == 1 else ""
    if best == reference:
        others = [m for m in comparison["methods"] if m != reference]
        if not others:
            return f"{best} is the only method here."
        open_ones = [m for m in others if verdict(block["methods"][m]["difference"]["mean"]) == "open"]
        if open_ones:
            return f"{best} has the highest mean; {_listed(open_ones)} cannot be told apart from it."
        return f"{best} beats every other method{once or ' here'}."
    difference = entry["difference"]["mean"]
    if verdict(difference) == "better":
        return f"{best} beats {reference} by {points(difference['value'])} points{once}."
    return f"{best} is ahead of {reference} by {points(difference['value'])} points, within the uncertainty."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _cells(entry: Mapping[str, Any], tasks: list[str]) -> list[str]:
    return [points(entry["tasks"][task]["value"]) for task in tasks]


def _line(cells: list[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells)
    return "| " + " | ".join(escaped) + " |"
