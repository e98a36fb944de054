"""The command line: parse, call a command, turn a failure into one line and an exit code.

Nothing heavy is imported at module level of what `--help` touches: a stage's module is imported when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cliprd.cli import inspect, pipeline, project, promotion, stages
from cliprd.cli.common import Commands, Parser, fail
from cliprd.names import shown_streams

EPILOG = """folders (DIR) may lie in S3: s3://bucket/prefix

exit codes: 0 done, 2 wrong parameters, 3 wrong or damaged input, 4 training diverged, 5 machine not fit,
75 may succeed if tried again, 1 a failed run, a difference (diff), a refusal (promote), or a defect in cliprd
(see it with --debug); ended by a signal: 130 SIGINT, 143 SIGTERM, 129 SIGHUP"""


def parser() -> Parser:
    """The whole command line; its help text is frozen by a test."""
    root = Parser(
        prog="cliprd",
        description="Distil a large CLIP into a small one with relational distillation (CLIP-RD).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `--out` would change its meaning with the first new option
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    commands = Commands(root, "command", "COMMAND")
    project.add(commands, root)
    stages.add(commands)
    promotion.add(commands)
    pipeline.add(commands)
    inspect.add_ablation(commands)
    inspect.add(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code (see EPILOG)."""
    from cliprd import signals

    with shown_streams(), signals.raised():  # also while a failure is reported
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    root = parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    _refuse_empty(root, words)
    options = root.parse_args(words)
    if options.version:
        from cliprd import __version__

        print(__version__)
        return 0
    if options.command is None:
        root.print_help()
        return 2
    from cliprd import signals
    from cliprd.errors import CliprdError, of_system
    from cliprd.extras import missing

    try:
        return int(options.call(options))
    except CliprdError as error:
        if options.debug:
            raise
        return fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") != "0":  # of several under torchrun the first speaks for all
            return signals.exit_code(stop)
        return fail(signals.line(stop), signals.exit_code(stop))
    except BrokenPipeError:  # the reader of our output went away, as `cliprd params | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        known = of_system(error) if isinstance(error, OSError) else missing(error)
        if known is not None:
            return fail(str(known), known.exit_code)
        return fail(f"{type(error).__name__}: {error} (a defect in cliprd; --debug shows where)", 1)


def _refuse_empty(root: Parser, words: Sequence[str]) -> None:
    """An unset variable of a shell would else be the present folder, or the default."""
    for before, word in zip(["", *words], words, strict=False):
        name, _, value = word.partition("=") if word.startswith("--") and "=" in word else (before, "", word)
        if not value.strip() and name != "--reason":
            root.error(f"argument {name}: it is empty" if name.startswith("-") else "an argument is empty")
