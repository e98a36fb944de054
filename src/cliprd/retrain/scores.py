"""The candidate's scores beside the champion's, in the report's words: with intervals, over the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliprd import manifest
from cliprd.params import Params
from cliprd.report import aggregate
from cliprd.report.comparison import primary_outcomes
from cliprd.report.runs import Run


def side_by_side(params: Params, candidate: Sequence[Path], champion: Sequence[Path]) -> dict[str, Any]:
    """`{"candidate": {"mean": I, "tasks": {TASK: I}}, "champion": the same or null, "examples": {TASK: n}}`.

    `I` is `{"value", "low", "high"}`, shares of 1. Tasks that the champion was not scored on, or on other examples, are
    left out on its side, and with any of them its mean.

    Args:
        params: `compare.protocol` and `promote.confidence` are used.
        candidate, champion: folders of `benchmark`, one a seed; the champion's may be none.
    """
    mine, theirs = _runs("candidate", candidate), _runs("champion", champion)
    tasks = mine[0].results["tasks"]
    shared = [
        name
        for name, task in tasks.items()
        if theirs and theirs[0].results["tasks"].get(name, {}).get("fingerprint") == task["fingerprint"]
    ]
    found = {
        "candidate": _scores(params, mine, list(tasks)),
        "champion": _scores(params, theirs, shared) if shared else None,
        "examples": {name: task["images"] for name, task in tasks.items()},
    }
    if found["champion"] and len(shared) < len(tasks):
        del found["champion"]["mean"]
    return found


def _runs(name: str, folders: Sequence[Path]) -> list[Run]:
    return [Run(name, folder, manifest.verify(folder, stage="benchmark")) for folder in folders]


def _scores(params: Params, runs: Sequence[Run], tasks: Sequence[str]) -> dict[str, Any]:
    results = runs[0].results
    outcomes = {
        "model": {
            task: np.stack(
                [
                    primary_outcomes(
                        run.tensors("outcomes", task), params.compare.protocol, results["tasks"][task]["kind"]
                    )
                    for run in runs
                ]
            )
            for task in tasks
        }
    }
    settings = results["bootstrap"]
    drawn = aggregate.draw(outcomes, resamples=settings["resamples"], seed=settings["seed"])
    return aggregate.scores(drawn["model"], params.promote.confidence)
