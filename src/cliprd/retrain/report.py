"""The report of a retraining: report.json for machines (docs/formats.md), report.md for the pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliprd.report import verdicts
from cliprd.report.charts.forest import spread
from cliprd.report.decision import markdown as decision_markdown
from cliprd.report.markdown import fence, literal, text
from cliprd.retrain import pictures

SCHEMA = 1
ENDINGS = {
    "nothing": "nothing to do",
    "failed": "failed",
    "planned": "would train",
    "passed": "passed the gate; not promoted, as was asked",
    "promoted": "promoted",
    "refused": "refused by the gate",
}
MOST_ROWS = 40  # changes shown; a thousand new shards need no thousand rows


def render(report: Mapping[str, Any]) -> str:
    """The report as Markdown, with nothing that a comment on GitHub or GitLab does not show."""
    parts = [f"## Retraining: {ENDINGS[report['ending']]}", "", _sentence(report), ""]
    parts += _changes(report["changes"], report["champion"], report["place"])
    if report["stages"] is not None:
        stages = ", ".join(literal(stage) for stage in report["stages"])
        nothing = "Nothing: the same inputs were trained before, and the results are fetched."
        parts += ["### What would run", "", stages or nothing, ""]
    if report["decision"] is not None:
        parts += _scores(report)
        parts += _gate(report["decision"])
    return "\n".join([*parts, *_foot(report)]) + "\n"


def _sentence(report: Mapping[str, Any]) -> str:
    why = text(report["why"])
    if report["ending"] == "promoted":
        return (
            f"**The gate:** {why}. Version {literal(report['version'])} is the champion in {literal(report['place'])}."
        )
    if report["ending"] == "refused":
        champion = (
            f"version {literal(report['champion'])} stays the champion"
            if report["champion"]
            else "there is no champion"
        )
        return f"**The gate:** {why}. Nothing was promoted; {champion}."
    return f"**The gate:** {why}." if report["decision"] is not None else f"{why[:1].upper()}{why[1:]}."


def _changes(changes: Sequence[Mapping[str, Any]], champion: str | None, place: str) -> list[str]:
    if champion is None:
        return [f"There was no champion in {literal(place)} before.", ""]
    if not changes:
        return []
    rows = [
        f"| {' | '.join([text(c['kind']), text(c['what']), _value(c['before']), _value(c['after'])])} |"
        for c in changes[:MOST_ROWS]
    ]
    more = [f"| | … and {len(changes) - MOST_ROWS} more | | |"] if len(changes) > MOST_ROWS else []
    head = [f"### Changed since version {literal(champion)}", "", "| | what | before | now |", "|---|---|---|---|"]
    return [*head, *rows, *more, ""]


def _scores(report: Mapping[str, Any]) -> list[str]:
    scores, decision = report["scores"], report["decision"]
    differences = {"mean": decision["mean"], **decision.get("tasks", {})} if decision.get("mean") else {}
    lines = []
    if scores:
        rows = []
        for label in ("mean", *scores["candidate"]["tasks"]):
            cells = [_cell(scores[side], label) for side in ("champion", "candidate")]
            delta = spread(differences[label], sign=True) if label in differences else "–"
            rows.append(f"| {text(label)} | {cells[0]} | {cells[1]} | {delta} | {scores['examples'].get(label, '')} |")
        lines += ["### Scores", "", "| task | champion | candidate | difference | examples |"]
        lines += ["|---|---:|---:|---:|---:|", *rows, ""]
        level = f"{100 * decision['confidence']:g}% intervals"
        lines += [f"Points (%); in brackets the {level}. The difference is paired over the same examples.", ""]
    if differences:
        lines += [fence(pictures.forest(differences), "text"), ""]
    if scores:
        lines += [fence(pictures.bars(scores), "mermaid"), ""]
    return lines


def _cell(side: Mapping[str, Any] | None, label: str) -> str:
    entry = side and (side.get("mean") if label == "mean" else side["tasks"].get(label))
    return spread(entry) if entry else "–"


def _gate(decision: Mapping[str, Any]) -> list[str]:
    guards, standing = decision.get("guards") or [], decision.get("standing")
    if not guards and not standing:
        return []
    broken = sum(guard["ok"] is False for guard in guards)
    low = standing and not standing["above_guessing"]
    summary = f"{broken or 'none'} of {len(guards)} guards broken" if guards else "no guards"
    summary = f"{verdicts.NOT_ABOVE}; {summary}" if low else summary
    return [
        f"<details{' open' if broken or low else ''}><summary>The gate's figures: {summary}</summary>",
        "",
        decision_markdown(decision),
        "</details>",
        "",
    ]


def _foot(report: Mapping[str, Any]) -> list[str]:
    facts = [
        f"runner {report['runner']}",
        f"method {report['method']}",
        f"seeds {', '.join(map(str, report['seeds']))}",
    ]
    if revision := report["git"].get("revision"):
        facts.append(f"revision {revision[:12]}{' with changes' if report['git']['changed'] else ''}")
    if report["pushed"]:
        facts.append(report["pushed"])
    asked = report["asked_by"]
    facts += [f"asked by {asked['who']}" + (f" ({asked['what']})" if asked.get("what") else "")] if asked else []
    return [f"<sub>{text('; '.join(facts))}.</sub>", *(f"\n{text(note)}" for note in report["notes"])]


def _value(value: Any) -> str:
    if value is None:
        return "–"
    full = str(value)
    short = full[:12] if len(full) == 64 and set(full) <= set("0123456789abcdef") else full[:80]
    return literal(short)
