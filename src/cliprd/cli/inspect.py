"""`ablation`, `params`, `plan`, `lineage` and `doctor`: commands that look and change nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprd.cli.common import Commands, folder, load

if TYPE_CHECKING:
    from cliprd.params import Params


def add_ablation(commands: Commands) -> None:
    """`ablation` with its views."""
    ablation = commands.plain(
        "ablation",
        "MLflow's runs of methods and seeds side by side",
        "MLflow's runs of methods and seeds side by side (params: tracking).",
    )
    views = Commands(ablation, "action", "ACTION", required=True)
    for name, call, text in (
        ("show", _ablation_show, "a table of the runs, best first: mean score with interval, last loss terms, status"),
        ("open", _ablation_open, "open MLflow's page of the runs with the columns, order and filter of a comparison"),
    ):
        view = views.add(name, call, text)
        view.add_argument("--experiment", metavar="NAME", help="default: tracking.experiment")
        if name == "open":
            view.add_argument("--print", action="store_true", dest="only_print", help="print the address only")


def add(commands: Commands) -> None:
    """`params`, `plan`, `lineage` and `doctor`."""
    show = commands.add("params", _params, "print the resolved parameter tree")
    show.add_argument("--schema", action="store_true", help="print the JSON schema instead")
    plan = commands.add("plan", _plan, "shapes, parameter counts and cost of a configuration, without training it")
    plan.add_argument("--samples", type=_count, metavar="N", help="pairs, for the cost; default: those in --shards")
    plan.add_argument(
        "--shards", type=folder, default=Path("work/shards"), metavar="DIR",
        help="folder of `prepare`; where it has not packed data.path yet, that is counted (default: work/shards)",
    )  # fmt: skip
    lineage = commands.add("lineage", _lineage, "where a student comes from, back to the raw shards, with its scores")
    lineage.add_argument(
        "path", type=folder, metavar="DIR", help="a student, its benchmark, a folder of both, or models:/<name>"
    )
    lineage.add_argument("--json", action="store_true", help="print the file instead")
    commands.add("doctor", _doctor, "versions, devices, and which optional parts are missing and how to get them")


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of pairs")
    return int(text)


def _tracked(options: argparse.Namespace) -> Params:
    import json

    if options.experiment:
        options.overrides = [*options.overrides, f"tracking.experiment={json.dumps(options.experiment)}"]
    return load(options)


def _ablation_show(options: argparse.Namespace) -> int:
    from cliprd.tracking import ablation

    sys.stdout.write(ablation.text(ablation.tables(_tracked(options))))
    return 0


def _ablation_open(options: argparse.Namespace) -> int:
    import webbrowser

    from cliprd.tracking import ablation, server

    tree = _tracked(options)
    address = ablation.page(tree)
    if not tree.tracking.uri.startswith(("http://", "https://")):
        print(f"Serve it first: mlflow ui --backend-store-uri {server.shown(tree.tracking.uri)}", file=sys.stderr)
    elif not options.only_print:
        webbrowser.open(address)
    print(address)
    return 0


def _params(options: argparse.Namespace) -> int:
    from cliprd import params

    if options.schema:
        sys.stdout.write(params.schema())
        return 0
    sys.stdout.write(params.dump(load(options)))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from cliprd import tracking
    from cliprd.data.count import PairCount, count
    from cliprd.plan import plan

    tree = load(options)
    given = PairCount(options.samples, "as given")
    sys.stdout.write(plan(tree, given if options.samples else count(tree.data, options.shards)))
    sys.stdout.write(f"tracking {tracking.check(tree)}\n")
    return 0


def _lineage(options: argparse.Namespace) -> int:
    import json

    from cliprd import lineage

    place = str(options.path)
    tree = _champions_lineage(options, place) if place.startswith("models:/") else lineage.of(options.path)
    if options.json:
        print(json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        sys.stdout.write(lineage.describe(tree))
    return 0


def _champions_lineage(options: argparse.Namespace, place: str) -> dict[str, Any]:
    from cliprd.errors import InputError
    from cliprd.promotion import champion

    held = champion.current(place, load(options))
    if held is None or held.lineage is None:
        what = "no champion" if held is None else f"a champion without lineage, version {held.version}"
        raise InputError(f"{place} has {what}.", "Promote a student that `cliprd benchmark` has scored.")
    return held.lineage


def _doctor(options: argparse.Namespace) -> int:
    from cliprd.doctor import examine

    return examine(sys.stdout, (lambda: load(options)) if options.params.is_file() or options.overrides else None)
