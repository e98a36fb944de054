"""A student's scores and pictures for its MLflow run: `benchmark` has them logged, and `compare` what it has missed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cliprd import tracking
from cliprd.artifact.manifest import Manifest
from cliprd.params import Params
from cliprd.report import comparison, standing, verdicts
from cliprd.report.results import TEACHER
from cliprd.report.runs import Grid, Run
from cliprd.report.sheet import write_sheet
from cliprd.statistics.bootstrap import Settings


def track(params: Params, student: Path, written: Manifest, opened: Callable[[], Run], teacher: Run | None) -> None:
    """Have a student's scores in MLflow, and its pictures where the teacher's are there to hold them against.

    Args:
        params: `tracking` is used.
        student: its folder.
        written: its benchmark's manifest.
        opened: gives its benchmark; called only where it is not logged yet.
        teacher: the one it was benchmarked against.
    """

    def draw(folder: Path) -> dict[str, Mapping[str, Any]]:
        run = opened()
        if teacher is not None:
            _draw(folder, run, teacher)
        for name in ("scores.json", "results.json"):
            (folder / "benchmark").mkdir(exist_ok=True)
            shutil.copyfile(run.folder / name, folder / "benchmark" / name)
        shutil.copyfile(student / "history.csv", folder / "history.csv")
        return summary(run)

    tracking.log_scores(params, student, written.fingerprint, draw, str(written.facts.get("left_out", "")))


def summary(run: Run) -> dict[str, Mapping[str, Any]]:
    """Every score with its interval: `mean` and `<task>` of the primary metric by the first protocol of all tasks,
    `mean/<protocol>` by each of these, `<task>/<protocol>/<metric>` of all.

    A task has its rates of `guessing` and `majority` too; a mean has the `floor` that they make, and its `standing`.
    """
    results = run.results
    found: dict[str, Mapping[str, Any]] = {}
    for protocol in _protocols(results):
        stands = standing.standing([run], protocol, Settings.of(results))
        floor, above = stands["floor"], stands["above_guessing"]["mean"]
        said = verdicts.standing(stands["mean"], floor["mean"], above)
        mean = {**stands["mean"], "floor": floor["mean"], "standing": said}
        if not found:
            found = {"mean": mean}
            found |= {name: {**score, **floor["tasks"][name]} for name, score in stands["tasks"].items()}
        found[f"mean/{protocol}"] = mean
    for name, task in results["tasks"].items():
        parts: dict[str, Any] = {**task["protocols"], **({"fidelity": task["fidelity"]} if task["fidelity"] else {})}
        for part, entry in parts.items():
            found |= {f"{name}/{part}/{metric}": score for metric, score in entry["scores"].items()}
    return found


def _protocols(results: Mapping[str, Any]) -> list[str]:
    """Those that all tasks were scored by, `standard` before `paper`."""
    tasks = results["tasks"].values()
    return [p for p in ("standard", "paper") if tasks and all(p in task["protocols"] for task in tasks)]


def _draw(folder: Path, run: Run, teacher: Run) -> None:
    method, _, seed = run.name.rpartition("-")
    protocol = next(iter(_protocols(run.results)), None)
    if protocol is None:
        return
    grid = Grid(teacher, {method: [run]}, (int(seed),))
    content = comparison.build(grid, reference=method, protocol=protocol)
    write_sheet(folder, grid, content, {"compare": {"reference": method, "protocol": protocol, "against": TEACHER}})
