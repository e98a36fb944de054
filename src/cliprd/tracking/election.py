"""One run where several would be created: MLflow gives runs their ids and knows no "create it unless it is there".

A process that finds none with the tag creates one, looks again, and takes the oldest of what is there then; the others
are removed, and their children handed to it. As all look again after creating, they agree on the one that stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from cliprd.tracking.server import quoted

PARENT = "mlflow.parentRunId"


def found(client: Any, experiment: str, tag: str, value: str) -> list[Any]:
    """Runs that carry the tag, oldest first."""
    runs = every(client, experiment, f"tags.`{tag}` = {quoted(value)}")
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def the_one(candidates: Callable[[], list[Any]], create: Callable[[], Any], client: Any, experiment: str) -> str:
    """Id of the first of the candidates; where there is none, of what `create` creates."""
    from mlflow.exceptions import MlflowException

    runs = candidates()
    if not runs:
        create()
        runs = candidates()
    winner, *others = (run.info.run_id for run in runs)
    for other in others:
        for child in children(client, experiment, other):
            client.set_tag(child.info.run_id, PARENT, winner)
        with contextlib.suppress(MlflowException):  # another process has just removed it
            client.delete_run(other)
    return str(winner)


def children(client: Any, experiment: str, parent: str) -> list[Any]:
    """The runs under a run."""
    return every(client, experiment, f"tags.`{PARENT}` = {quoted(parent)}")


def every(client: Any, experiment: str, query: str) -> list[Any]:
    """All runs that a filter finds, page by page."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], query, max_results=1000, page_token=token)
        runs += page
        if not (token := page.token):
            return runs
