"""The comparison as a Markdown table for README, pull requests and terminal, with its notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cliprd.names import visible
from cliprd.report import verdicts
from cliprd.report.charts.forest import points, spread
from cliprd.report.markdown import text
from cliprd.statistics.aggregate import EXAMPLES

METRICS = {
    "acc1": "top-1 accuracy",
    "mean_r1": "R@1, mean of both directions",
    "mean_average_precision": "mean average precision",
    "text_acc": "share of images whose right caption is nearest",
}
SHORT_METRICS = {"acc1": "top-1", "mean_r1": "R@1", "mean_average_precision": "mAP", "text_acc": "accuracy"}
RATES = {"guessing": "guessing", "majority": "most frequent answer"}


def markdown_table(comparison: Mapping[str, Any]) -> str:
    """Models × tasks in points, the teacher first, with notes on metrics and intervals.

    Args:
        comparison: content of comparison.json; the table has the protocol that is shown first.
    """
    protocol = comparison["protocol"]
    block = comparison["protocols"][protocol]
    reference = comparison["reference"]
    tasks, leaders = list(comparison["tasks"]), verdicts.leaders(block)
    head = ["model", "mean", f"Δ to {text(reference)}", "of teacher", *map(text, tasks)]
    rows = [["**teacher**", _mean(block["teacher"]), "", "", *_cells(block["teacher"], tasks)]]
    for method in comparison["methods"]:
        entry = block["methods"][method]
        difference = spread(entry["difference"]["mean"], sign=True) if "difference" in entry else "reference"
        share = f"{entry['kept']['value']:.0%}" if entry["kept"] else "–"
        name = f"**{text(method)}**" if method in leaders else text(method)
        rows.append([name, _mean(entry), difference, share, *_cells(entry, tasks)])
    floor = block["floor"]["tasks"]
    for rate, label in RATES.items():
        values = [floor[task][rate] for task in tasks]
        rows.append([label, points(sum(values) / len(values)), "", "", *map(points, values)])
    lines = [_line(head), "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|", *map(_line, rows)]
    figures = (
        f"Points (%), protocol `{protocol}`; bold: the highest mean and those that are not significantly below it; "
        f"brackets: {100 * comparison['confidence']:g}% intervals, {comparison['resamples']:,} resamples; Δ is paired "
        "over the same examples."
    )
    paragraphs = [block["headline"], figures, coverage(comparison), *notes(comparison, "In parentheses", name=text)]
    return "\n".join([*lines, "", *paragraphs]) + "\n"


def notes(comparison: Mapping[str, Any], mark: str, *, name: Callable[[str], str] = str) -> list[str]:
    """Notes on the metrics and on scores not above guessing, one a line.

    Args:
        mark: how scores not above guessing are marked.
        name: escapes names and reasons.
    """
    confidence = f"{100 * comparison['confidence']:g}%"
    examples = ", ".join(
        f"{name(task)} {METRICS.get(facts['metric'], facts['metric'])} (n = {facts['examples']:,})"
        for task, facts in comparison["tasks"].items()
    )
    lines = [
        f"Scores: {examples}.",
        f"{mark}: not above guessing (a class or an image at random) or the most frequent answer (always the "
        "class with most examples, or the image with most captions), by the interval of every training.",
    ]
    differences = len(comparison["methods"]) - 1
    if differences > 1:
        chance = min(1.0, differences * (1 - comparison["confidence"]))
        lines.append(
            f"{differences} differences at {confidence} each, without correction for their number: where no method "
            f"differs, up to {100 * chance:.0f}% of such tables show one that does."
        )
    if comparison.get("left_out"):
        lines.append(f"Left out, not scored: {left_out(comparison['left_out'], name=name)}.")
    return lines


def left_out(reasons: Mapping[str, str], *, name: Callable[[str], str] = visible) -> str:
    """Tasks that were not scored, each with its reason, in one line."""
    return "; ".join(f"{name(task)} ({name(why.rstrip('.'))})" for task, why in sorted(reasons.items()))


def coverage(comparison: Mapping[str, Any]) -> str:
    """A sentence on what the intervals cover."""
    seeds = comparison["seeds"]
    if len(seeds) == 1:
        return (
            f"One seed ({seeds[0]}): the intervals cover the choice of test examples only, not training noise. They "
            "are about these trainings, not methods; another seed may move a score by more than its interval."
        )
    if comparison["interval_covers"] == EXAMPLES:
        return (
            f"{len(seeds)} seeds with the same mean: training noise is unknown, and the intervals cover the choice "
            "of test examples only."
        )
    methods = comparison["protocols"][comparison["protocol"]]["methods"]
    same = [method for method, entry in methods.items() if entry.get("covers") == EXAMPLES]
    return (
        f"{len(seeds)} seeds: the intervals cover the choice of test examples, and training noise by Student's t with "
        "the seeds' degrees of freedom."
        + (f" Seeds with the same mean, which show no training noise: {', '.join(same)}." if same else "")
    )


def _mean(entry: Mapping[str, Any]) -> str:
    return spread(entry["mean"]) if entry["above_guessing"]["mean"] else f"({spread(entry['mean'])})"


def _cells(entry: Mapping[str, Any], tasks: list[str]) -> list[str]:
    shown = {task: points(entry["tasks"][task]["value"]) for task in tasks}
    return [shown[task] if entry["above_guessing"]["tasks"][task] else f"({shown[task]})" for task in tasks]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
