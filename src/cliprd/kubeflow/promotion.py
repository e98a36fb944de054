"""The steps of the retraining pipeline: gate, promote, refuse, record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cliprd.artifact import manifest
from cliprd.artifact.manifest import Manifest
from cliprd.kubeflow.retry import attempts, here, reporting
from cliprd.kubeflow.step import run, tree_of
from cliprd.report import markdown

MOST_NOTED = 4500  # characters; MLflow's database holds 5,000 in a tag


def gate(sections: Mapping[str, Any], candidate: str, output: str, *, run_name: str, publish: bool = True) -> Manifest:
    """`gate`, with a note for `record` of what it said, and whether a student that passes is to be promoted."""
    made = run("gate", sections, {"candidate": candidate}, output)
    with reporting():
        decision = json.loads((here(output) / "decision.json").read_text(encoding="utf-8"))
        told = ("passed", "verdict", "reason", "champion", "mean", "tasks", "overrides")
        noted = {name: decision[name] for name in told if name in decision}
        if len(json.dumps(noted)) > MOST_NOTED:
            del noted["tasks"]  # told in the step's own artifact
        _note(sections, f"{run_name}/gate", {**noted, "publish": publish})
    return made


def promote(sections: Mapping[str, Any], student: str, benchmark: str, decision: str, *, run_name: str) -> str:
    """Publish the student as champion, with a note for `record`. Returns its version.

    Args:
        sections: `promote` and `tracking`.
        student, benchmark: folders of the candidate.
        decision: folder of the gate.
        run_name: of the pipeline's run, which has asked for it.
    """
    from cliprd.promotion.champion import publish

    with reporting():
        version = _candidate(publish, sections, student, benchmark, _decision(decision), run_name)
        _note(sections, f"{run_name}/promote", {"version": version})
        return version


def refuse(sections: Mapping[str, Any], student: str, benchmark: str, decision: str, *, run_name: str) -> str | None:
    """Keep a refused student with the gate's word. Returns its version; None where there is nothing to keep.

    Arguments as of `promote`.
    """
    from cliprd.promotion.champion import refuse as keep
    from cliprd.promotion.package import check

    with reporting():
        found = _decision(decision)
        attempts(lambda: check(Path(student), [Path(benchmark)]))
        if found["verdict"] in ("champion", "withdrawn", "no place"):
            return None
        return _candidate(keep, sections, student, benchmark, found, run_name)


def record(sections: Mapping[str, Any], text: str, *, run_name: str, state: str, error: str) -> str:
    """Write how a run ended as Markdown, and as JSON beside the champion. Returns it in a word.

    What `gate` and `promote` have left decides. Kubeflow's own word is told beside it: its backend derives that from
    the steps that ran last, and says RUNNING of runs whose last steps came from its cache or were left out.
    """
    with reporting():
        gated, promoted = (noted_by(sections, f"{run_name}/{step}") for step in ("gate", "promote"))
        if promoted:
            ending, why = "promoted", f"version {promoted['version']} is the champion"
        elif gated and not gated["passed"]:
            ending, why = "not promoted", gated["reason"]
        elif gated and not gated["publish"]:
            ending, why = "not promoted", f"as was asked; it passed the gate: {gated['reason']}"
        else:
            ending, why = "failed", f"{'after' if gated else 'before'} the gate: look at the run's failed step"
        if not sections["promote"]["champion"]:
            ending, why = "not promoted", "promote.champion names no place for a champion, nor for notes on the run"
        found = {"run": run_name, "ending": ending, "why": why, "kubeflow": state, "error": error}
        lines = [f"- {name}: {markdown.text(value)}" for name, value in found.items() if value]
        Path(text).write_text("\n".join(lines) + "\n", encoding="utf-8")
        _note(sections, f"{run_name}/ending", found)
        return ending


def _decision(folder: str) -> dict[str, Any]:
    manifest.verify(folder, stage="gate")
    found: dict[str, Any] = json.loads((Path(folder) / "decision.json").read_text(encoding="utf-8"))
    return found


def _candidate(
    act: Callable[..., str],
    sections: Mapping[str, Any],
    student: str,
    benchmark: str,
    decision: Mapping[str, Any],
    run_name: str,
) -> str:
    """`champion.publish` or `champion.refuse` of folders that lie here."""
    from cliprd.promotion.champion import asker

    tree = tree_of(sections, where="promote")
    folders = Path(student), [Path(benchmark)]
    return attempts(lambda: act(tree.promote.champion, tree, *folders, decision, asker(f"Kubeflow run {run_name}")))


def _note(sections: Mapping[str, Any], name: str, note: Mapping[str, Any]) -> None:
    from cliprd.promotion import champion

    tree = tree_of(sections, where="champion")
    if tree.promote.champion:
        attempts(lambda: champion.note(tree.promote.champion, tree, name, note))


def noted_by(sections: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The note that a step of this name left beside the champion; None where there is none, or no place for one."""
    from cliprd.promotion import champion

    tree = tree_of(sections, where="champion")
    return attempts(lambda: champion.noted(tree.promote.champion, tree, name)) if tree.promote.champion else None
