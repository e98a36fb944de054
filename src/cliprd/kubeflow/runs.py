"""The runs on a server: listed with their state and the reason of a failure, and cancelled."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Iterator
from typing import Any

from cliprd.errors import CliprdError, InputError, RetryableError
from cliprd.formatting import columns
from cliprd.kubeflow.client import ENDED, Api, NotFound
from cliprd.kubeflow.pipeline_names import PipelineNames
from cliprd.kubeflow.workflow import FAILED, read_workflow
from cliprd.names import shortened, visible

HEAD = ("name", "id", "state", "created (UTC)", "seconds", "failure")
MOST_SHOWN = 200  # characters of a failure's first line
MOST_NAMED = 5  # runs, in an error's message


def table(api: Api, pipeline: str | None, *, limit: int) -> str:
    """The newest runs as a table; one line where there are none. Archived runs are left out.

    Args:
        api: the connection.
        pipeline: show its runs only: `distill`, or a pipeline's name on the server.
        limit: runs at most.

    Raises:
        InputError: the server has no such pipeline, or refuses us. RetryableError: it cannot be reached now.
    """
    runs = _newest(api)
    only = None
    if pipeline:
        names = PipelineNames(api)
        only = names.known(pipeline)
        runs = (run for run in runs if names.of(run) == only)
    shown = list(itertools.islice(runs, limit))
    if not shown:
        return f"{api.host} has no run{f' of {only}' if only else ''}.\n"
    return columns(HEAD, [_row(api, run) for run in shown])


def cancel(api: Api, run_id: str) -> str:
    """End a run: its pods are stopped. A line that says what was done.

    Raises:
        InputError: no such run, it has ended, or the server refuses us. RetryableError: it cannot be reached now.
    """
    try:
        run = api.client._run_api.run_service_get_run(run_id=run_id)
    except NotFound as error:
        raise InputError(f"{api.host} has no run {shortened(run_id)}.", _unfinished(api)) from error
    state = str(run.state or "")
    if state in ENDED:
        raise InputError(f"Run {visible(run.display_name)} ({run.run_id}) has ended: {state.lower()}.")
    if state == "CANCELING":
        return f"run {visible(run.display_name)} ({run.run_id}) is being cancelled already"
    api.client.terminate_run(run.run_id)
    return f"run {visible(run.display_name)} ({run.run_id}) is being cancelled: {api.link('runs', run.run_id)}"


def _newest(api: Api) -> Iterator[Any]:
    runs = api.pages(api.client.list_runs, "runs", namespace=api.namespace, sort_by="created_at desc")
    return (run for run in runs if run.storage_state != "ARCHIVED")


def _unfinished(api: Api) -> str:
    """Which runs could be meant."""
    going = (run for run in _newest(api) if str(run.state or "") not in ENDED)
    named = [f"{visible(run.display_name)} ({run.run_id})" for run in itertools.islice(going, MOST_NAMED)]
    return f"Not ended are, newest first: {', '.join(named)}." if named else "No run there is unfinished."


def _row(api: Api, run: Any) -> tuple[str, ...]:
    created = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else "-"
    return (
        visible(run.display_name or "-"), run.run_id, str(run.state or "-").lower(), created, _seconds(run),
        _failure(api, run),
    )  # fmt: skip


def _seconds(run: Any) -> str:
    """From its creation to its end, or to now."""
    if not run.created_at:
        return "-"
    ended = str(run.state or "") in ENDED
    over = run.finished_at if ended else datetime.datetime.now(datetime.UTC)
    # A run that has not ended has the epoch as its end.
    return f"{(over - run.created_at).total_seconds():.0f}" if over and over >= run.created_at else "-"


def _failure(api: Api, run: Any) -> str:
    """The first line of a failed run's reason; empty for others."""
    message = (run.error.message or "") if run.error else ""
    if run.state == "FAILED":
        message = _reason(api, run.run_id) or message or "it left no message"
    return shortened((message.strip().splitlines() or [""])[0], MOST_SHOWN)


def _reason(api: Api, run_id: str) -> str:
    """The step that failed first and its message, from the run's workflow; the workflow's own where no step failed."""
    try:
        answer = api.get(f"/apis/v1beta1/runs/{run_id}")
        workflow = read_workflow(json.loads(answer["pipeline_runtime"]["workflow_manifest"]))
    except RetryableError:
        raise
    except CliprdError as error:  # a gateway that lets only v2 through
        return f"its reason cannot be read: {error.problem}"
    except (KeyError, TypeError, ValueError):
        return ""
    failed = [node for node in workflow.nodes if node.phase in FAILED and node.leaf and node.place]
    if not failed:
        return workflow.message
    place = min(failed, key=lambda node: node.started or "~").place
    last = max((node for node in failed if node.place == place), key=lambda node: node.turn)
    step = next(name for name in reversed(place) if name != "executor").removesuffix("-driver")
    return f"{step}: {last.message.strip() or 'it left no message'}"
