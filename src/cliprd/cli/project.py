"""`init` and `completion`: what sets up a project and a shell."""

from __future__ import annotations

import argparse
import sys

from cliprd.cli.common import Commands, local_path

SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands, root: argparse.ArgumentParser) -> None:
    """`init`, and `completion` of all commands below `root`."""
    init = commands.plain(
        "init",
        "write a project of your own: parameters, DVC pipeline, retraining workflow",
        "Write a project of your own around the installed cliprd: params.yaml, dvc.yaml, DVC's settings, the "
        "retraining workflow and a README. No file is overwritten.",
    )
    init.add_argument("folder", type=local_path, metavar="DIR", help="the project's folder; made if it is not there")
    init.add_argument("--data", metavar="PATH", default="data/train", help="data.path, relative to DIR or in S3")
    init.add_argument("--tasks", metavar="PATH", default="data/benchmark", help="benchmark.tasks, likewise")
    init.set_defaults(call=_init, debug=False)
    completion = commands.plain(
        "completion",
        "print a shell's completion script",
        "Print a shell's completion script; docs/install.md says where each shell looks for it.",
    )
    completion.add_argument("shell", choices=SHELLS, help="which shell")
    completion.set_defaults(call=_completion, debug=False, root=root)


def _init(options: argparse.Namespace) -> int:
    from cliprd.project import write

    names = write(options.folder, data=options.data, tasks=options.tasks)
    print(f"init: {options.folder} has {', '.join(names)}; README.md there has the next commands")
    return 0


def _completion(options: argparse.Namespace) -> int:
    from cliprd.extras import optional

    with optional():
        import shtab

    root = options.root
    for action in _actions(root):
        if action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in ("FILE", "PATH"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(root, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All arguments of a parser and of the commands below it."""
    actions = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                actions += _actions(command)
    return actions
