"""The stages as commands."""

from __future__ import annotations

import argparse
import importlib
import os

from cliprd.cli.common import Commands, Parser, check_output, folder, load, local_path
from cliprd.names import visible


def add(commands: Commands) -> None:
    """`inputs`, and every stage from `prepare` to `compare`."""
    outside = commands.add(
        "inputs", _inputs, "look at data, benchmark tasks and teacher's weights, for DVC to see what changed outside"
    )
    outside.add_argument(
        "--output", type=local_path, required=True, metavar="DIR", help="folder for a small file of each"
    )
    _stage_command(commands, "prepare", "pack image-caption pairs into checked shards (params: data)")
    _stage_command(
        commands,
        "teacher",
        "make the teacher ready, training the demo one (params: teacher)",
        shards="!|folder of `prepare`",
    )
    cache = _stage_command(
        commands,
        "cache",
        "embed the shards with the teacher (params: cache, augmentation)",
        shards="!|folder of `prepare`",
        teacher="!|folder of `teacher`",
    )
    cache.add_argument("--part", metavar="K/N", help="only the K-th (from 0) of N runs of shards, for `merge`")
    _stage_command(
        commands,
        "merge",
        "join the parts of a cache that was embedded on several machines",
        shards="!|folder of `prepare`",
        parts="!|folder of folders of `cache --part`",
    )
    distill = _stage_command(
        commands,
        "distill",
        "train a student from shards and cache (params: distill, student)",
        shards="!|folder of `prepare`",
        cache="!|folder of `cache`",
    )
    distill.add_argument("--method", metavar="NAME", help="same as --set distill.method=NAME")
    distill.add_argument("--seed", metavar="N", help="same as --set distill.seed=N")
    _stage_command(
        commands,
        "benchmark",
        "evaluate a student or the teacher zero-shot (params: benchmark)",
        model="!|folder of `distill` or `teacher`",
        reference="|the teacher's benchmark folder, for fidelity",
    )
    _stage_command(
        commands,
        "compare",
        "compare methods and seeds; write the report (params: ablation, compare)",
        benchmarks="!|folder of benchmark folders",
        students="!|folder of student folders",
    )


def _stage_command(commands: Commands, name: str, text: str, **inputs: str) -> Parser:
    parser = commands.add(name, _run_stage, text)
    for flag, value in inputs.items():
        required, _, explain = value.partition("|")
        parser.add_argument(f"--{flag}", type=folder, required=required == "!", metavar="DIR", help=explain)
    parser.add_argument("--output", type=folder, required=True, metavar="DIR", help="folder to write")
    parser.set_defaults(inputs=tuple(inputs))
    return parser


def _run_stage(options: argparse.Namespace) -> int:
    from cliprd.tracking import following

    tree = load(options)
    inputs = {name: path for name in options.inputs if (path := getattr(options, name)) is not None}
    check_output(options.output, inputs.values())
    extra = {"part": options.part} if getattr(options, "part", None) else {}
    run = importlib.import_module(f"cliprd.stages.{options.command}").run
    with following(tree, options.command, inputs, options.output):
        manifest = run(tree, inputs, options.output, **extra)
    if os.environ.get("RANK", "0") != "0":  # one of several under torchrun: the first speaks for all
        return 0
    facts = ", ".join(f"{key} {value}" for key, value in manifest.facts.items() if isinstance(value, int | float | str))
    print(visible(f"{options.command}: {options.output} is whole{': ' + facts if facts else ''}"))
    return 0


def _inputs(options: argparse.Namespace) -> int:
    from cliprd.lineage.inputs import write

    changed = write(load(options), options.output)
    print(f"inputs: {', '.join(changed) or 'nothing'} changed")
    return 0
