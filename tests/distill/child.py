"""Runs stage `distill` in a process of its own, which SIGKILLs itself at the moment that it is told.

Usage: python child.py ROOMS OUTPUT MOMENT, MOMENT one of `record:<step>`, `checkpoint:<step>` or `exported`.
"""

import os
import signal
import sys
from pathlib import Path

from cliprd.distill import checkpoint
from cliprd.stages import distill
from tests.distill.rooms import make_params


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def main(rooms: Path, output: Path, moment: str) -> None:
    kind, _, step = moment.partition(":")
    report = None
    if kind == "record":  # between two checkpoints

        def report(record):
            if record.step == int(step):
                die()

    elif kind == "checkpoint":  # the tensors are in place, their JSON is not
        write = checkpoint.files.write_json
        checkpoint.files.write_json = lambda path, value: (
            die() if value.get("step") == int(step) else write(path, value)
        )
    elif kind == "exported":  # all but the manifest
        distill.Workspace.finish = die
    distill.run(make_params(rooms), {"shards": rooms / "shards", "cache": rooms / "cache"}, output, report=report)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
