"""Scores of one recipe from its benchmark folders, with intervals and compared with guessing; used by all commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliprd.report.runs import Run
from cliprd.statistics import aggregate, guessing
from cliprd.statistics.aggregate import Side
from cliprd.statistics.bootstrap import Settings
from cliprd.statistics.outcomes import primary

Tensors = Mapping[str, Mapping[str, Any]]  # task → tensors of its outcomes file


def side(runs: Sequence[Run], protocol: str, tasks: Sequence[str]) -> Side:
    """Task → `[seeds, examples]` of the primary metric, a row a run."""
    return {
        task: np.stack(
            [primary(run.tensors("outcomes", task), protocol, run.results["tasks"][task]["kind"]) for run in runs]
        )
        for task in tasks
    }


def standing(runs: Sequence[Run], protocol: str, settings: Settings, tasks: Sequence[str] = ()) -> dict[str, Any]:
    """`of` several seeds' runs over `tasks` (default: all)."""
    names = list(tasks) or list(runs[0].results["tasks"])
    tensors = {task: runs[0].tensors("outcomes", task) for task in names}
    return of(side(runs, protocol, names), tensors, runs[0].results["tasks"], protocol, settings)


def of(scores: Side, tensors: Tensors, facts: Mapping[str, Any], protocol: str, settings: Settings) -> dict[str, Any]:
    """`{"mean": I, "tasks": {TASK: I}, "floor": {"mean", "tasks": {TASK: {"guessing", "majority"}}},
    "above_guessing": {"mean": bool, "tasks": {TASK: bool}}}`.

    Args:
        scores: from `side`.
        tensors: of one run.
        facts: the tasks' entries in results.json.
        protocol: of the scores.
        settings: of the intervals.
    """
    rates = {task: guessing.rates(tensors[task], protocol, facts[task]) for task in scores}
    scored = aggregate.score(aggregate.draw({"": (scores,)}, settings)[""], settings)
    above = guessing.above({"": scores}, rates, settings)[""]
    return {**scored, "floor": {"mean": guessing.floor(rates), "tasks": rates}, "above_guessing": above}
