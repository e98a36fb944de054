"""The schedules on a server, which KFP calls recurring runs: listed, paused, resumed and removed by name or id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cliprd.errors import InputError
from cliprd.formatting import columns
from cliprd.kubeflow.client import Api, NotFound
from cliprd.kubeflow.pipeline_names import PipelineNames
from cliprd.names import shortened, visible

HEAD = ("name", "id", "state", "starts", "pipeline", "created (UTC)")
MOST_NAMED = 10  # in an error's message


def table(api: Api, pipeline: str | None) -> str:
    """The schedules as a table, newest first; one line where there are none.

    Args:
        api: the connection.
        pipeline: show its schedules only: `distill`, or a pipeline's name on the server.

    Raises:
        InputError: the server has no such pipeline, or refuses us.
    """
    names = PipelineNames(api)
    only = names.known(pipeline) if pipeline else None
    jobs = [job for job in _all(api) if only is None or names.of(job) == only]
    if not jobs:
        return f"{api.host} has no schedule{f' of {only}' if only else ''}.\n"
    return columns(HEAD, [_row(job, names) for job in jobs])


def pause(api: Api, name: str) -> str:
    """Start no more runs of a schedule; those that run continue. A line that says what was done.

    Raises:
        InputError: no schedule, or several, have this name; or the server refuses us.
    """
    job = find(api, name)
    if job.status == "DISABLED":
        return f"{_shown(job)} is paused already"
    api.client.disable_recurring_run(job.recurring_run_id)
    return f"{_shown(job)} is paused; runs that it has started continue"


def resume(api: Api, name: str) -> str:
    """Start runs of a paused schedule again. A line that says what was done; errors as of `pause`."""
    job = find(api, name)
    if job.status == "ENABLED":
        return f"{_shown(job)} is not paused"
    api.client.enable_recurring_run(job.recurring_run_id)
    missed = "the latest run missed meanwhile starts" if job.no_catchup else "every run missed meanwhile starts"
    return f"{_shown(job)} is resumed; {missed}, if there is one"


def remove(api: Api, name: str) -> str:
    """Remove a schedule; runs that it has started continue. A line that says what was done; errors as of `pause`."""
    job = find(api, name)
    delete(api, job)
    return f"{_shown(job)} is removed; runs that it has started continue"


def find(api: Api, name: str) -> Any:
    """The schedule of this id, or the only one of this name.

    Raises:
        InputError: there is none, or there are several.
    """
    jobs = list(_all(api))
    same = [job for job in jobs if job.recurring_run_id == name] or [job for job in jobs if job.display_name == name]
    if len(same) > 1:
        ids = ", ".join(job.recurring_run_id for job in same)
        raise InputError(f"{api.host} has {len(same)} schedules named {shortened(name)}: {ids}.", "Give one's id.")
    if not same:
        raise InputError(f"{api.host} has no schedule {shortened(name)}.", _existing(jobs))
    return same[0]


def delete(api: Api, job: Any) -> None:
    """Remove a schedule. Its runs, which Kubernetes would remove with it, stay; gone already is as good.

    Raises:
        InputError: the server refuses us. RetryableError: it cannot be reached now.
    """
    try:
        api.client._recurring_run_api.recurring_run_service_delete_recurring_run(
            job.recurring_run_id, propagation_policy="ORPHAN"
        )
    except NotFound:
        return


def _all(api: Api) -> list[Any]:
    lister = api.client.list_recurring_runs
    return list(api.pages(lister, "recurring_runs", namespace=api.namespace, sort_by="created_at desc"))


def _existing(jobs: Sequence[Any]) -> str:
    names = sorted({visible(job.display_name or job.recurring_run_id) for job in jobs})
    if not names:
        return "It has none."
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"It has {', '.join(names[:MOST_NAMED])}{more}."


def _row(job: Any, names: PipelineNames) -> tuple[str, ...]:
    created = f"{job.created_at:%Y-%m-%d %H:%M}" if job.created_at else "-"
    state = {"ENABLED": "active", "DISABLED": "paused"}.get(job.status, "-")
    unreadable = job.error.message if job.error else ""
    starts = unreadable or _trigger(job.trigger)
    return (
        visible(job.display_name or "-"), job.recurring_run_id, state, visible(starts), visible(names.of(job)), created
    )  # fmt: skip


def _trigger(trigger: Any) -> str:
    if trigger and trigger.cron_schedule:
        return str(trigger.cron_schedule.cron)
    if trigger and trigger.periodic_schedule:
        return f"every {trigger.periodic_schedule.interval_second} s"
    return "-"


def _shown(job: Any) -> str:
    return f"schedule {visible(job.display_name)} ({job.recurring_run_id})"
