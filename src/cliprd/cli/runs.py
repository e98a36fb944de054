"""`cliprd pipeline runs`: the runs on a cluster and their state; cancel one."""

from __future__ import annotations

import argparse
import sys

from cliprd.cli import cluster
from cliprd.cli.common import Commands

LIMIT = 20


def add(actions: Commands) -> None:
    """`runs`."""
    sub = actions.plain(
        "runs",
        "the runs on a cluster, newest first, with their state and why they failed; cancel one",
        "The runs on a cluster, newest first, with their state and why they failed; cancel one. Seconds are from a "
        "run's creation to its end, or to now. Archived runs are left out.",
    )
    sub.add_argument(
        "pipeline", nargs="?", metavar="PIPELINE",
        help=f"only runs of {', '.join(cluster.PIPELINES)}, or of any pipeline's name on the server",
    )  # fmt: skip
    cluster.add_server_options(sub)
    sub.add_argument("--limit", type=_count, metavar="N", help=f"runs at most; default: {LIMIT}")
    sub.add_argument("--cancel", metavar="RUN_ID", help="end this run")
    sub.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    sub.set_defaults(call=_runs)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from 1 to 10,000")
    return int(text)


def _runs(options: argparse.Namespace) -> int:
    from cliprd.errors import ParamsError
    from cliprd.extras import need

    if options.cancel and (options.pipeline or options.limit):
        other = options.pipeline or "--limit"
        raise ParamsError(f"{other} has no effect with --cancel.", f"Leave one of {other} and --cancel out.")
    need("kubeflow", "A run")
    from cliprd.kubeflow import runs

    api = cluster.connect(options)
    if options.cancel:
        print(runs.cancel(api, options.cancel))
    else:
        sys.stdout.write(runs.table(api, options.pipeline, limit=options.limit or LIMIT))
    return 0
