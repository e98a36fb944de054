"""The steps of the retraining pipeline: gate, promote, refuse, record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cliprd.artifact import manifest
from cliprd.artifact.manifest import Manifest
from cliprd.kubeflow.retry import local_folder, reporting, with_retries
from cliprd.kubeflow.step import run, tree_of
from cliprd.report import markdown

MOST_NOTED = 4500  # characters; MLflow's database holds 5,000 in a tag


def gate(sections: Mapping[str, Any], candidate: str, output: str, *, run_name: str, publish: bool = True) -> Manifest:
    """`gate`, with a note for `record`: the decision, and whether a student that passes is to be promoted."""
    finished = run("gate", sections, {"candidate": candidate}, output)
    with reporting():
        decision = json.loads((local_folder(output) / "decision.json").read_text(encoding="utf-8"))
        keys = ("passed", "verdict", "reason", "champion", "mean", "tasks", "overrides")
        note = {key: decision[key] for key in keys if key in decision}
        if len(json.dumps(note)) > MOST_NOTED:
            del note["tasks"]  # the step's own artifact has them
        _note(sections, f"{run_name}/gate", {**note, "publish": publish})
    return finished


def promote(sections: Mapping[str, Any], student: str, benchmark: str, decision: str, *, run_name: str) -> str:
    """Publish the student as champion, with a note for `record`. Returns its version.

    Args:
        sections: `promote` and `tracking`.
        student, benchmark: folders of the candidate.
        decision: folder of the gate.
        run_name: of the pipeline's run, recorded as the requester.
    """
    from cliprd.promotion.champion import publish

    with reporting():
        version = _act(publish, sections, student, benchmark, _decision(decision), run_name)
        _note(sections, f"{run_name}/promote", {"version": version})
        return version


def refuse(sections: Mapping[str, Any], student: str, benchmark: str, decision: str, *, run_name: str) -> str | None:
    """Keep a refused student with the gate's decision. Returns its version; None where there is nothing to keep.

    Arguments as of `promote`.
    """
    from cliprd.promotion import champion, package

    with reporting():
        refusal = _decision(decision)
        with_retries(package.check, Path(student), [Path(benchmark)])
        if refusal["verdict"] in ("champion", "withdrawn", "no place"):
            return None
        return _act(champion.refuse, sections, student, benchmark, refusal, run_name)


def record(sections: Mapping[str, Any], text: str, *, run_name: str, state: str, error: str) -> str:
    """Write how a run ended as Markdown, and as JSON beside the champion. Returns the ending in a word.

    The notes of `gate` and `promote` decide. Kubeflow's own state is written beside the ending: its backend derives it
    from the steps that ran last, and reports RUNNING for runs whose last steps were cached or skipped.
    """
    with reporting():
        gated, promoted = (noted_by(sections, f"{run_name}/{step}") for step in ("gate", "promote"))
        if promoted:
            ending, why = "promoted", f"version {promoted['version']} is the champion"
        elif gated and not gated["passed"]:
            ending, why = "not promoted", gated["reason"]
        elif gated and not gated["publish"]:
            ending, why = "not promoted", f"input publish is false; it passed the gate: {gated['reason']}"
        else:
            ending, why = "failed", f"{'after' if gated else 'before'} the gate: look at the run's failed step"
        if not sections["promote"]["champion"]:
            ending, why = (
                "not promoted",
                "promote.champion is empty: no folder for a champion, nor for notes on the run",
            )
        fields = {"run": run_name, "ending": ending, "why": why, "kubeflow": state, "error": error}
        lines = [f"- {name}: {markdown.text(value)}" for name, value in fields.items() if value]
        Path(text).write_text("\n".join(lines) + "\n", encoding="utf-8")
        _note(sections, f"{run_name}/ending", fields)
        return ending


def noted_by(sections: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The note that a step of this name left beside the champion; None where there is none, or no champion's folder."""
    from cliprd.promotion import champion

    tree = tree_of(sections, where="champion")
    return with_retries(champion.noted, tree.promote.champion, tree, name) if tree.promote.champion else None


def _note(sections: Mapping[str, Any], name: str, note: Mapping[str, Any]) -> None:
    from cliprd.promotion import champion

    tree = tree_of(sections, where="champion")
    if tree.promote.champion:
        with_retries(champion.note, tree.promote.champion, tree, name, note)


def _decision(folder: str) -> dict[str, Any]:
    manifest.verify(folder, stage="gate")
    decision: dict[str, Any] = json.loads((Path(folder) / "decision.json").read_text(encoding="utf-8"))
    return decision


def _act(
    act: Callable[..., str],
    sections: Mapping[str, Any],
    student: str,
    benchmark: str,
    decision: Mapping[str, Any],
    run_name: str,
) -> str:
    """`champion.publish` or `champion.refuse` of local folders."""
    from cliprd.promotion.champion import asker

    tree = tree_of(sections, where="promote")
    requester = asker(f"Kubeflow run {run_name}")
    return with_retries(act, tree.promote.champion, tree, Path(student), [Path(benchmark)], decision, requester)
