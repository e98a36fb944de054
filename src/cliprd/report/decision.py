"""`decision.md`: the gate's decision, with every figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliprd.report import verdicts
from cliprd.report.markdown import literal, text


def points(interval: Mapping[str, float]) -> str:
    """`+1.70 [+0.60, +2.80]`: a difference of shares in points."""
    value, low, high = (f"{100 * interval[key]:{'+' if interval[key] else ''}.2f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def markdown(decision: Mapping[str, Any]) -> str:
    """`decision.md`: the word, the reason and every figure."""
    lines = [f"**{'Promote' if decision['passed'] else 'Do not promote'}**: {text(decision['reason'])}.", ""]
    lines += _standing(decision)
    if "mean" in decision:
        lines += [
            f"Candidate − champion (version {text(decision['champion'])}), points, "
            f"protocol {literal(decision['protocol'])}; "
            f"brackets: {100 * decision['confidence']:g}% intervals over {text(decision['covers'])}.",
            "",
            "| score | difference | may be worse by | |",
            "|---|---:|---:|---|",
            f"| **mean over tasks** | {points(decision['mean'])} | | |",
        ]
    for guard in decision.get("guards", ()):
        word = {True: "ok", False: "**too much worse**", None: "not known"}[guard["ok"]]
        lines.append(
            f"| {guard['kind']}: {text(guard['name'])} | {_figure(guard)} | {_margin(guard)} | {_also(word, guard)} |"
        )
    lines += [f"\n{text(note)}" for note in decision.get("notes", ())]
    return "\n".join(lines).rstrip() + "\n"


def _standing(decision: Mapping[str, Any]) -> list[str]:
    """The candidate's own scores against guessing, and what was overridden."""
    stands = decision.get("standing")
    if stands is None:
        return []
    sentence = verdicts.standing(stands["mean"], stands["floor"], stands["above_guessing"])
    lines = [f"The candidate's mean over tasks is {text(sentence)}; {100 * decision['confidence']:g}% interval.", ""]
    if below := [text(task) for task, entry in stands["tasks"].items() if not entry["above_guessing"]]:
        lines += [f"Not above guessing on: {', '.join(below)}.", ""]
    if decision["overrides"]:
        lines += [f"**Overridden**: {', '.join(decision['overrides'])}.", ""]
    return lines


def _figure(guard: Mapping[str, Any]) -> str:
    if guard["value"] is None:
        return ""
    if guard["kind"] == "tasks":
        return points(guard)
    if guard["low"] is None:
        return f"{100 * guard['value']:+.1f} %"
    return f"{guard['value']:+.3f} [{guard['low']:+.3f}, {guard['high']:+.3f}]"


def _margin(guard: Mapping[str, Any]) -> str:
    scale, unit = {"tasks": (100, " points"), "fidelity": (1, "")}.get(guard["kind"], (100, " %"))
    return f"{scale * guard['margin']:g}{unit}"


def _also(word: str, guard: Mapping[str, Any]) -> str:
    return f"{word}: {text(guard['note'])}" if guard["note"] else word
