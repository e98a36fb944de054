"""The program `cliprd`, also `python -m cliprd`: it hears of signals before the command line is imported."""

import sys

from cliprd import signals


def main() -> int:
    """Entry point. Returns the exit code (see `cliprd.cli`)."""
    with signals.raised():
        try:
            from cliprd import cli

            return cli.main()
        except KeyboardInterrupt as stop:  # `cli.main` was not there yet, or was past it
            print(f"cliprd: error: {signals.line(stop)}", file=sys.stderr)
            return signals.exit_code(stop)


if __name__ == "__main__":
    sys.exit(main())
