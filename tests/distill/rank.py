"""A process that `launch` starts: does what its task says, on the rank that it says.

Usage: python -m tests.distill.rank TASK
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

from cliprd.distill import distributed
from cliprd.distill.error_file import record_exception
from cliprd.errors import CliprdError, InputError
from cliprd.machine import end_with_parent


def main(task):
    end_with_parent()
    with record_exception(), distributed.join(torch.device("cpu")) as world:
        assert world.share("the leader's" if world.leads else "another's") == "the leader's"
        Path(task["folder"], str(world.rank)).write_text(str(os.getpid()))
        match task["what"] if world.rank == task.get("rank") else "meet":
            case "refuse":
                raise InputError("Sample 'x' cannot be decoded.", "Run `cliprd prepare` again.")
            case "stumble":
                raise KeyError("x")
            case "leave":
                os._exit(7)
            case "sleep":
                time.sleep(600)
            case "meet":
                world.gather(torch.ones(1, 1), world.size)


if __name__ == "__main__":
    try:
        main(json.loads(Path(sys.argv[1]).read_text()))
    except CliprdError as error:
        sys.exit(error.exit_code)
    except Exception:
        sys.exit(1)
