"""What all commands share: parsers, arguments' types, the loading of parameters, one line for a failure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cliprd.names import one_line

if TYPE_CHECKING:
    from cliprd.params import Params
    from cliprd.storage import Location

Call = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Reports what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(fail(f"{message} (see `{self.prog} --help`)", 2))


class Commands:
    """Commands below a parser, each with the options that every command takes.

    Args:
        parent: the parser that they are commands of.
        dest: attribute that names the one that was given.
        metavar: how the help text shows it.
        required: whether one must be given.
    """

    def __init__(self, parent: argparse.ArgumentParser, dest: str, metavar: str, *, required: bool = False) -> None:
        self._parsers = parent.add_subparsers(dest=dest, metavar=metavar, required=required, parser_class=Parser)
        self._common = Parser(add_help=False)
        group = self._common.add_argument_group("on every command")
        group.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="parameter file")
        group.add_argument(
            "--set", action="append", default=[], metavar="A.B=C", dest="overrides", help="override one key"
        )
        group.add_argument("--debug", action="store_true", help="show the traceback of a failure")

    def add(self, name: str, call: Call, help: str, description: str = "") -> Parser:
        """A command; `call` gets its options and returns the exit code."""
        parser = self._parsers.add_parser(
            name, parents=[self._common], help=help, description=description or help, allow_abbrev=False
        )
        parser.set_defaults(call=call)
        return parser

    def plain(self, name: str, help: str, description: str | None = None) -> Parser:
        """A command without parameters, or one that has commands of its own."""
        parser = self._parsers.add_parser(name, help=help, description=description, allow_abbrev=False)
        return parser


def folder(text: str) -> Location:
    """An argument that names a folder, here or in S3."""
    from cliprd.errors import InputError
    from cliprd.storage import parse

    try:
        return parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_path(text: str) -> Path:
    """A path that cannot lie in S3."""
    place = folder(text)
    if not isinstance(place, Path):
        raise argparse.ArgumentTypeError(f"{text[:100]} must be on this machine, not in S3")
    return place


def check_output(output: Location, inputs: Iterable[Location]) -> None:
    """A stage clears its output folder."""
    from cliprd.errors import ParamsError

    for folder in inputs:
        here = isinstance(folder, Path) and isinstance(output, Path)
        if str(folder) == str(output) or (here and Path(folder).resolve().is_relative_to(Path(output).resolve())):
            raise ParamsError(f"--output {output} is or holds {folder}, which is read.", "Give another --output.")


def load(options: argparse.Namespace) -> Params:
    """The parameter tree that the options name."""
    from cliprd import params

    named = {
        f"distill.{key}={value}": f"--{key} {value}"
        for key in ("method", "seed")
        if (value := getattr(options, key, None)) is not None
    }
    return params.load(options.params, [*options.overrides, *named], written=named)


def fail(message: str, code: int) -> int:
    """Report a failure in one line; returns the exit code."""
    print(f"cliprd: error: {one_line(message)}", file=sys.stderr)
    return code
