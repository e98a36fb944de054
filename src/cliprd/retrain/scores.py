"""The candidate's scores beside the champion's, in the report's words: with intervals, over the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliprd.artifact import manifest
from cliprd.params import Params
from cliprd.report.runs import Run
from cliprd.report.standing import standing
from cliprd.statistics.bootstrap import Settings


def side_by_side(params: Params, candidate: Sequence[Path], champion: Sequence[Path]) -> dict[str, Any]:
    """`{"candidate": {"mean": I, "tasks": {TASK: I}}, "champion": the same or null, "examples": {TASK: n}}`.

    `I` is `{"value", "low", "high"}`, shares of 1. Each side has its `floor` and `above_guessing` too, as in
    `cliprd.report.standing`. Tasks that the champion was not scored on, or on other examples, are left out on its side,
    and with any of them its mean.

    Args:
        params: `compare.protocol` and `promote.confidence` are used.
        candidate, champion: folders of `benchmark`, one a seed; the champion's may be none.
    """
    mine, theirs = _runs("candidate", candidate), _runs("champion", champion)
    results = mine[0].results
    tasks = results["tasks"]
    shared = [
        name
        for name, task in tasks.items()
        if theirs and theirs[0].results["tasks"].get(name, {}).get("fingerprint") == task["fingerprint"]
    ]
    protocol, settings = params.compare.protocol, Settings.of(results, params.promote.confidence)  # as the gate's
    scores = {
        "candidate": standing(mine, protocol, settings, list(tasks)),
        "champion": standing(theirs, protocol, settings, shared) if shared else None,
        "examples": {name: task["images"] for name, task in tasks.items()},
    }
    if scores["champion"] and len(shared) < len(tasks):
        del scores["champion"]["mean"]
    return scores


def _runs(name: str, folders: Sequence[Path]) -> list[Run]:
    return [Run(name, folder, manifest.verify(folder, stage="benchmark")) for folder in folders]
