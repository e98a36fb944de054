"""`promote`, `rollback` and `retrain`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cliprd.cli.common import Commands, check_output, folder, load, local_path
from cliprd.names import visible

if TYPE_CHECKING:
    from cliprd.retrain.run import Runner


def add(commands: Commands) -> None:
    """All three commands."""
    _add_promote(commands)
    rollback = commands.add(
        "rollback", _rollback, "make the champion before this one the champion again (params: promote)"
    )
    rollback.add_argument("--to", metavar="VERSION", help="that one instead of the one before")
    rollback.add_argument("--reason", default="", metavar="TEXT", help="kept with it; default: CI's run")
    _add_retrain(commands)


def _add_promote(commands: Commands) -> None:
    promote = commands.add(
        "promote",
        _promote,
        "make a student the champion if it is significantly better (params: promote); exit code 1: it was refused",
    )
    promote.add_argument(
        "--allow-guessing",
        action="append_const",
        dest="overrides",
        const="promote.allow_guessing=true",
        help="same as --set promote.allow_guessing=true: promote a student that is not above guessing",
    )
    promote.add_argument("--student", type=folder, required=True, metavar="DIR", help="folder of `distill`")
    promote.add_argument(
        "--benchmark",
        type=folder,
        required=True,
        action="append",
        metavar="DIR",
        help="folder of `benchmark`; again for each further seed",
    )
    promote.add_argument("--output", type=folder, required=True, metavar="DIR", help="folder for the decision")
    promote.add_argument("--dry-run", action="store_true", help="decide, and change nothing")
    promote.add_argument("--reason", default="", metavar="TEXT", help="kept with the decision; default: CI's run")


def _add_retrain(commands: Commands) -> None:
    again = commands.add(
        "retrain",
        _retrain,
        "train, gate and promote a student if data, parameters or code have changed since the champion"
        " (params: retrain, promote)",
    )
    again.add_argument("--dry-run", action="store_true", help="print what would be done and why; change nothing")
    again.add_argument("--runner", choices=("dvc", "kfp"), default="dvc", help="who trains (default: dvc)")
    again.add_argument("--no-promote", action="store_true", help="train and gate only, as for a pull request")
    again.add_argument(
        "--output", type=local_path, default=Path("work/retrain"), metavar="DIR", help="folder of the report"
    )
    again.add_argument("--reason", default="", metavar="TEXT", help="kept with the decision; default: CI's run")
    kfp = again.add_argument_group("with --runner kfp")
    kfp.add_argument("--host", metavar="URL", help="of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT")
    kfp.add_argument("--local", choices=("docker", "process"), help="here instead, in containers or processes")
    kfp.add_argument("--namespace", metavar="NAME", help="yours, in multi-user Kubeflow")
    kfp.add_argument("--token-file", type=Path, metavar="FILE", help="holds a token; default: KFP_TOKEN holds it")
    kfp.add_argument("--image", metavar="NAME", help="of the steps; default: the content-made tag of `make images`")
    kfp.add_argument("--allow-mutable-image", action="store_true", help="take a tag that can move")


def _promote(options: argparse.Namespace) -> int:
    tree = load(options)
    from cliprd.promotion.champion import asker
    from cliprd.promotion.promote import promote

    check_output(options.output, [options.student, *options.benchmark])
    promotion = promote(
        tree,
        options.student,
        options.benchmark,
        options.output,
        asked_by=asker(options.reason),
        dry_run=options.dry_run,
    )
    if options.dry_run:
        word = f"would {'' if promotion.decision['passed'] else 'not '}be promoted"
    else:
        word = f"version {promotion.version} is the champion" if promotion.promoted else "not promoted"
    print(visible(f"promote: {word}: {promotion.decision['reason']} ({options.output})"))
    return 0 if promotion.promoted or promotion.decision["passed"] else 1


def _rollback(options: argparse.Namespace) -> int:
    tree = load(options)
    from cliprd.promotion.champion import asker, rollback

    version = rollback(tree.promote.champion, tree, asker(options.reason), options.to)
    print(visible(f"rollback: version {version} is the champion"))
    return 0


def _retrain(options: argparse.Namespace) -> int:
    from cliprd import tracking
    from cliprd.promotion.champion import asker
    from cliprd.retrain import dvc, report
    from cliprd.retrain.run import TEXT, dry_run, retrain

    tree = load(options)
    tracking.check(tree)
    runner = dvc.Repository(tree) if options.runner == "dvc" else _kfp_runner(options)
    asked_by, facts = asker(options.reason), {"git": dvc.revision()}
    if options.dry_run:
        sys.stdout.write(report.render(dry_run(tree, runner, asked_by=asked_by, facts=facts)))
        return 0
    promote = not options.no_promote
    outcome = retrain(tree, runner, output=options.output, asked_by=asked_by, promote=promote, facts=facts)
    print(visible(f"retrain: {report.ENDINGS[outcome['ending']]}: {outcome['why']} ({options.output / TEXT})"))
    return 0


def _kfp_runner(options: argparse.Namespace) -> Runner:
    from cliprd.cli.cluster import connect, parameters_and_image, warn_of_images
    from cliprd.retrain.kfp import Pipeline

    tree, image = parameters_and_image(options)
    if options.local:
        return Pipeline(tree, image, local=options.local)
    warn_of_images(options, image, tree.kubernetes.slim_image)
    return Pipeline(tree, image, api=connect(options))
