"""The sentences of verdicts, shared by page, Markdown, terminal, MLflow and gate.

With one seed a side, a sentence is about two trainings, not about methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliprd.report.charts.forest import points, spread
from cliprd.statistics.aggregate import SEEDS, verdict

ABOVE, NOT_ABOVE = "above guessing", "not above guessing"


def named(name: str, covers: str) -> str:
    """The subject of a verdict: a method, or one training of it."""
    return name if covers == SEEDS else f"this {name} training"


def against(ours: str, theirs: str, difference: Mapping[str, Any]) -> str:
    """`this a training beats this b training by 1.8 points`.

    Args:
        ours, theirs: methods.
        difference: of the means, ours − theirs, as `aggregate.differences` gives it.
    """
    ours, theirs = (named(name, difference["covers"]) for name in (ours, theirs))
    mean = difference["mean"]
    size, word = points(abs(mean["value"])), verdict(mean)
    if mean["value"] == 0:
        return f"{ours} and {theirs} have the same mean"
    if size == points(0):
        size = "less than 0.1"
    if word == "open":
        side = "ahead of" if mean["value"] >= 0 else "behind"
        return f"{ours} is {side} {theirs} by {size} points, within the uncertainty"
    return f"{ours} {'beats' if word == 'better' else 'is worse than'} {theirs} by {size} points"


def standing(score: Mapping[str, float], floor: float, above: bool) -> str:
    """`not above guessing: 1.5 [0.9, 2.2] where guessing or the most frequent answer gives 3.1`; means over tasks."""
    word = ABOVE if above else NOT_ABOVE
    return f"{word}: {spread(score)} where guessing or the most frequent answer gives {points(floor)}"


def headline(block: Mapping[str, Any], reference: str) -> str:
    """The winner and its lead, claimed only if the intervals support it.

    Args:
        block: of one protocol (`cliprd.report.comparison`).
        reference: method that the others are compared with.
    """
    methods, floor = block["methods"], block["floor"]["mean"]
    if not block["teacher"]["above_guessing"]["mean"]:
        return f"Nothing to distil: the teacher is {standing(block['teacher']['mean'], floor, False)}."
    best = block["best"]
    if not any(entry["above_guessing"]["mean"] for entry in methods.values()):
        standing_of_best = standing(methods[best]["mean"], floor, False)
        return f"Nothing to promote: no student is above guessing; the best, {best}, is {standing_of_best}."
    if not methods[best]["above_guessing"]["mean"]:
        return f"{best} has the highest mean, but not every training of it is above guessing."
    return f"{_first_upper(_winner(block, best, reference))}."


def _winner(block: Mapping[str, Any], best: str, reference: str) -> str:
    methods = block["methods"]
    if best != reference:
        return against(best, reference, methods[best]["difference"])
    others = {m: entry["difference"] for m, entry in methods.items() if m != reference}
    if not others:
        return f"{best} is the only method here"
    covers = SEEDS if all(difference["covers"] == SEEDS for difference in others.values()) else ""
    if all(difference["mean"]["value"] == 0 for difference in others.values()):
        return f"{_listed([best, *others])} have the same mean"
    undecided = [m for m, difference in others.items() if verdict(difference["mean"]) == "open"]
    if undecided:
        those = _listed(undecided) if covers else f"that of {' and of '.join(undecided)}"
        return f"{named(best, covers)} has the highest mean; {those} cannot be told apart from it"
    return f"{named(best, covers)} beats {'every other method' if covers else 'those of every other method'} here"


def nothing(block: Mapping[str, Any]) -> str:
    """`distil` or `promote` if the scores give no reason to do it; else empty."""
    if not block["teacher"]["above_guessing"]["mean"]:
        return "distil"
    return "" if any(entry["above_guessing"]["mean"] for entry in block["methods"].values()) else "promote"


def leaders(block: Mapping[str, Any]) -> list[str]:
    """Methods to mark as best: the highest mean and those not significantly below it; none if `nothing` applies."""
    above = [method for method in block["leaders"] if block["methods"][method]["above_guessing"]["mean"]]
    return [] if nothing(block) else above


def badge(block: Mapping[str, Any], method: str) -> tuple[str, str]:
    """(colour, text) beside a method's difference to the reference; `clear` needs several seeds.

    The colour is `better`, `worse` or `open`.
    """
    entry = block["methods"][method]
    if action := nothing(block):
        return "open", f"nothing to {action}"
    if not entry["above_guessing"]["mean"]:
        return "open", NOT_ABOVE
    if entry["verdict"] == "open":
        return "open", "undecided"
    return (entry["verdict"], "clear") if entry["difference"]["covers"] == SEEDS else ("open", "these trainings")


def _first_upper(sentence: str) -> str:
    return f"T{sentence[1:]}" if sentence.startswith("this ") else sentence


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
