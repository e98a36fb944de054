"""`cliprd pipeline schedule`: start a pipeline periodically; list, pause, resume and remove schedules."""

from __future__ import annotations

import argparse
import sys

from cliprd.cli import cluster
from cliprd.cli.common import Commands

OF_A_NEW_ONE = {
    "overrides": "--set", "image": "--image", "allow_mutable_image": "--allow-mutable-image", "input": "--input",
    "experiment": "--experiment", "cron": "--cron", "job_name": "--job-name", "max_concurrency": "--max-concurrency",
    "no_catchup": "--no-catchup",
}  # fmt: skip


def add(actions: Commands) -> None:
    """`schedule`."""
    sub = actions.add(
        "schedule",
        _schedule,
        "run the pipeline on a cluster periodically; list, pause, resume and remove such schedules",
    )
    sub.add_argument(
        "pipeline", choices=cluster.PIPELINES, nargs="?", help="which pipeline; with --list: only its schedules"
    )
    cluster.add_image_options(sub)
    cluster.add_server_options(sub)
    cluster.add_run_options(sub)
    sub.add_argument("--cron", metavar="FIELDS", help="minute hour day month weekday: '0 3 * * *'")
    sub.add_argument("--job-name", metavar="NAME", help="schedule of this name is replaced; default: the pipeline's")
    sub.add_argument("--max-concurrency", type=int, metavar="N", help="runs at the same time; default: 1")
    sub.add_argument("--no-catchup", action="store_true", help="of the runs that were missed, start the latest only")
    there = sub.add_argument_group("schedules that are there").add_mutually_exclusive_group()
    there.add_argument("--list", action="store_true", help="show them")
    there.add_argument("--pause", metavar="NAME", help="start no more runs of it; name or id")
    there.add_argument("--resume", metavar="NAME", help="start runs of a paused one again; name or id")
    there.add_argument("--remove", metavar="NAME", help="remove it; its runs stay; name or id")


def _schedule(options: argparse.Namespace) -> int:
    verb = next((verb for verb in ("pause", "resume", "remove") if getattr(options, verb)), None)
    if verb or options.list:
        return _of_existing(options, verb)
    return _new(options)


def _of_existing(options: argparse.Namespace, verb: str | None) -> int:
    from cliprd.errors import ParamsError
    from cliprd.extras import need

    refused = [option for name, option in OF_A_NEW_ONE.items() if getattr(options, name) not in (None, False, [])]
    if verb and options.pipeline:
        refused.insert(0, options.pipeline)
    if refused:
        what = f"--{verb or 'list'}"
        raise ParamsError(f"{refused[0]} has no effect with {what}.", f"Leave one of {refused[0]} and {what} out.")
    need("kubeflow", "A schedule")
    from cliprd.kubeflow import recurring

    api = cluster.connect(options)
    if verb is None:
        sys.stdout.write(recurring.table(api, options.pipeline))
    else:
        print(getattr(recurring, verb)(api, getattr(options, verb)))
    return 0


def _new(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError

    if not options.pipeline or options.cron is None:
        missing = "a pipeline" if not options.pipeline else "--cron"
        remedy = "For example `cliprd pipeline schedule retrain --cron '0 3 * * *'`; those that are there: --list."
        raise ParamsError(f"A new schedule needs {missing}.", remedy)
    at_once = 1 if options.max_concurrency is None else options.max_concurrency
    if not 1 <= at_once <= 10:
        raise ParamsError(f"--max-concurrency {at_once}: KFP takes 1 to 10.")
    tree, image = cluster.parameters_and_image(options)
    from cliprd.kubeflow.schedule import cron, schedule
    from cliprd.kubeflow.submit import compile_submission

    when = cron(options.cron)
    cluster.warn_of_images(options, image, tree.kubernetes.slim_image)
    submission = compile_submission(options.pipeline, tree, image, options.input)
    schedule(
        cluster.connect(options),
        submission,
        cron_expression=when,
        job_name=options.job_name,
        experiment=options.experiment or tree.tracking.experiment,
        max_concurrency=at_once,
        catchup=not options.no_catchup,
    )
    cluster.warn_of_retries(tree)
    return 0
