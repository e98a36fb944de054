"""Start a pipeline periodically: a recurring run, one of its name."""

from __future__ import annotations

import re
from typing import Any

import kfp_server_api

from cliprd.errors import CliprdError, InputError, ParamsError
from cliprd.kubeflow import recurring
from cliprd.kubeflow.client import Api
from cliprd.kubeflow.submit import Submission, find_experiment, run_source
from cliprd.kubeflow.versions import uploaded

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, DAYS),
)
_SHORT = re.compile(r"@(hourly|daily|midnight|weekly|monthly|yearly|annually|every (\d+(\.\d+)?[hms])+)")
_PART = re.compile(r"([*?]|\w+)(?:-(\w+))?(?:/0*[1-9]\d*)?", re.ASCII)


def cron(expression: str) -> str:
    """A cron expression as KFP reads it: with seconds.

    KFP reads five fields as seconds to months: `0 3 * * *` would run at three minutes past every hour. Here five fields
    are minutes to weekdays, as in crontab. No cron library has KFP's grammar: seconds first, `@every`, no weekday 7.

    Raises:
        ParamsError: it is no cron expression.
    """
    fields = expression.split()
    if _SHORT.fullmatch(text := " ".join(fields)):
        return text
    if len(fields) == len(FIELDS) - 1:
        fields.insert(0, "0")
    if len(fields) != len(FIELDS):
        raise ParamsError(
            f"--cron '{expression}': expected five fields (minute hour day month weekday), or six with seconds first.",
            'For example --cron "0 3 * * *", every night at three.',
        )
    for value, (name, low, high, words) in zip(fields, FIELDS, strict=True):
        numbers = {**{word: low + index for index, word in enumerate(words)}, "*": low, "?": low}
        for part in value.split(","):
            match = _PART.fullmatch(part.upper())
            ends = (
                [numbers.get(end, int(end) if end.isdigit() else -1) for end in match.groups() if end] if match else []
            )
            if not ends or ends != sorted(ends) or not all(low <= end <= high for end in ends):
                names = f" or {words[0]}-{words[-1]}" if words else ""
                raise ParamsError(
                    f"--cron '{expression}': '{part}' is no {name}.",
                    f"Allowed: {low}-{high}{names}, *, lists, ranges and steps.",
                )
    return " ".join(fields)


def schedule(
    api: Api, submission: Submission, *, cron_expression: str, job_name: str | None, experiment: str,
    max_concurrency: int, catchup: bool,
) -> Any:  # fmt: skip
    """Upload the pipeline if the server lacks this content, and make a recurring run; it replaces those of its name.

    Args:
        api: the connection.
        submission: what to run.
        cron_expression: as returned by `cron`.
        job_name: None: the pipeline's name.
        experiment: group of runs in the UI; made if it does not exist.
        max_concurrency: runs at the same time.
        catchup: start what was missed while the job was disabled.

    Returns:
        The server's recurring run.
    """
    name = job_name or submission.name
    group = find_experiment(api, experiment)  # refused before anything is uploaded
    old = api.find_all(api.client.list_recurring_runs, "recurring_runs", name, namespace=api.namespace)
    with uploaded(api, submission.text) as version:
        job = api.client._recurring_run_api.recurring_run_service_create_recurring_run(
            recurring_run=kfp_server_api.V2beta1RecurringRun(
                experiment_id=group.experiment_id,
                display_name=name,
                description=submission.description,
                mode=kfp_server_api.RecurringRunMode.ENABLE,
                trigger=kfp_server_api.V2beta1Trigger(
                    cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron_expression)
                ),
                max_concurrency=str(max_concurrency),
                no_catchup=not catchup,
                **run_source(submission, version, cache=True),
            )
        )
    for replaced in old:  # after the new one exists: a failure in between leaves a schedule, not none
        _remove(api, replaced)
    replaced = f", replaced {len(old)} of this name" if len(old) > 1 else ", replaced" if old else ""
    print(f"job {name}: {cron_expression} (the server's clock, mostly UTC){replaced}")
    print(api.link("recurringrun", job.recurring_run_id))
    return job


def _remove(api: Api, job: Any) -> None:
    try:
        recurring.delete(api, job)
    except CliprdError as error:
        raise InputError(
            f"The new job {job.display_name} exists, but the old one ({job.recurring_run_id}) could not be removed:"
            f" {error.problem}",
            f"Remove it, or both run: {api.link('recurringrun', job.recurring_run_id)}",
        ) from error
