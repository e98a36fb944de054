"""Start a pipeline again and again: a recurring run, one of its name."""

from __future__ import annotations

import re
from typing import Any

import kfp_server_api

from cliprd.errors import CliprdError, InputError, ParamsError
from cliprd.kubeflow.client import Api, NotFound
from cliprd.kubeflow.submit import Order, find_experiment, source
from cliprd.kubeflow.versions import upload, version_name

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
SHORT = {"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
_EVERY = re.compile(r"@every (\d+(\.\d+)?(h|m|s))+$")
_PART = re.compile(r"(?P<first>\*|\?|[0-9A-Za-z]+)(-(?P<last>[0-9A-Za-z]+))?(/(?P<step>\d+))?$")


def cron(expression: str) -> str:
    """A cron expression as KFP reads it: with seconds.

    KFP takes five fields too, but for seconds to months: `0 3 * * *` would run at three minutes past every hour. Here
    five fields are what they are everywhere else.

    Raises:
        ParamsError: it is none.
    """
    text = " ".join(expression.split())
    if text in SHORT or _EVERY.match(text):
        return text
    fields = text.split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != len(FIELDS):
        raise ParamsError(
            f"--cron '{expression}': expected five fields (minute hour day month weekday), or six with seconds first.",
            'For example --cron "0 3 * * *", every night at three.',
        )
    for value, (name, low, high, words) in zip(fields, FIELDS, strict=True):
        for part in value.split(","):
            _check(expression, part, name, low, high, words)
    return " ".join(fields)


def schedule(
    api: Api, ordered: Order, *, cron_expression: str, job_name: str | None, experiment: str, max_concurrency: int,
    catchup: bool,
) -> Any:  # fmt: skip
    """Upload the pipeline if the server lacks this content, and let it recur; jobs of the same name are replaced.

    Args:
        api: the connection.
        ordered: what to run.
        cron_expression: as `cron` gives it.
        job_name: None: the pipeline's name.
        experiment: group of runs in the UI; made if it is not there.
        max_concurrency: runs at the same time.
        catchup: start what was missed while the job was disabled.

    Returns:
        The recurring run, as the server tells it.
    """
    name = job_name or ordered.name
    version, new = upload(api, ordered.text)
    print(f"pipeline {ordered.name}: version {version_name(ordered.text)} {'uploaded' if new else 'is there already'}")
    group = find_experiment(api, experiment)
    old = api.find(api.client.list_recurring_runs, "recurring_runs", name, namespace=api.namespace)
    made = api.client._recurring_run_api.recurring_run_service_create_recurring_run(
        recurring_run=kfp_server_api.V2beta1RecurringRun(
            experiment_id=group.experiment_id,
            display_name=name,
            description=f"{version_name(ordered.text)}, {ordered.image}",
            mode=kfp_server_api.RecurringRunMode.ENABLE,
            trigger=kfp_server_api.V2beta1Trigger(
                cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron_expression)
            ),
            max_concurrency=str(max_concurrency),
            no_catchup=not catchup,
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(ordered.arguments)),
            **source(version, ordered.text, cache=True),
        )
    )
    for job in old:  # after the new one is there: a failure in between leaves a schedule, not none
        _remove(api, job)
    print(f"job {name}: {cron_expression} (the server's clock, mostly UTC){', replaced' if old else ''}")
    print(api.link("recurringrun", made.recurring_run_id))
    return made


def _remove(api: Api, job: Any) -> None:
    try:
        api.client.delete_recurring_run(job.recurring_run_id)
    except NotFound:
        return
    except CliprdError as error:
        raise InputError(
            f"The new job {job.display_name} is there, but the old one ({job.recurring_run_id}) could not be removed:"
            f" {error.problem}",
            f"Remove it, or both run: {api.link('recurringrun', job.recurring_run_id)}",
        ) from error


def _check(expression: str, part: str, name: str, low: int, high: int, words: tuple[str, ...]) -> None:
    match = _PART.match(part)
    numbers = [_number(match[group], low, words) for group in ("first", "last") if match[group]] if match else [None]
    good = all(number is not None and (number < 0 or low <= number <= high) for number in numbers)
    if match and match["step"] == "0":
        good = False
    if good and len(numbers) == 2 and (numbers[0] or 0) > (numbers[1] or 0):
        good = False
    if not good:
        names = f" or {words[0]}-{words[-1]}" if words else ""
        raise ParamsError(
            f"--cron '{expression}': '{part}' is no {name}.",
            f"Allowed: {low}-{high}{names}, *, lists, ranges and steps.",
        )


def _number(text: str, low: int, words: tuple[str, ...]) -> int | None:
    if text in ("*", "?"):
        return -1
    if text.upper() in words:
        return words.index(text.upper()) + low
    return int(text) if text.isdigit() else None
