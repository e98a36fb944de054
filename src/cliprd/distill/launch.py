"""Starts a Python module in several processes through torchrun's launcher, and tells how they ended.

On several machines the same is called on each; they meet by torchrun's c10d rendezvous, and each tells what it saw.

Of the ranks that fail, one is the cause and the others have lost it. Each leaves what it knows in the file that
torchrun names (see `error_file`); the launcher raises the cause as if it had happened here: its class, and so its exit
code, and its one line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliprd import errors, files
from cliprd.distill.distributed import LostContactError
from cliprd.distill.machines import MEET, Nodes
from cliprd.errors import CliprdError, RetryableError
from cliprd.reading import read_json
from cliprd.storage.content import verified

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
GRACE = 10  # seconds from SIGTERM to SIGKILL for the ranks that are left


def launch(module: str, task: Mapping[str, Any], processes: int, nodes: Nodes | None = None) -> None:
    """Run `python -m module TASK` in `processes` processes of this machine until all have ended well.

    A signal that ends this process ends them first.

    Args:
        task: what TASK, a file, holds as JSON.
        nodes: the machines that do so together, each with the same task; None: this one alone.

    Raises:
        CliprdError: what the failing rank has raised.
        RetryableError: a rank was killed, another machine was lost or has not come.
        RuntimeError: a rank met a defect; its traceback is attached.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    caught = None
    with tempfile.TemporaryDirectory(prefix="cliprd-ranks-") as folder, _handlers_kept(), _torchrun_silent():
        file = Path(folder) / "task.json"
        files.write_json(file, {**task, "verified": verified()})  # the ranks need not read the inputs to verify them
        config = LaunchConfig(
            nproc_per_node=processes,
            rdzv_backend="c10d",
            **_meeting(task, nodes),
            max_restarts=0,  # a rerun goes on from the last checkpoint; whether to is the scheduler's decision
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(s.name for s in SIGNALS),
            shutdown_timeout=GRACE,
        )
        try:
            # -P: the current folder is no place to import from
            elastic_launch(config, sys.executable)("-P", "-m", module, str(file))
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            raise _cause(_handed_over(Path(folder)), codes) from None
        except RendezvousError as error:
            line = " ".join(str(error).split())[:200].rstrip(".")
            raise RetryableError(
                f"The machines have not met, or have lost each other: {line}.",
                "Run the same command to resume from the last checkpoint.",
            ) from error
        except SignalException as error:
            caught = error.sigval
    if caught == signal.SIGINT:
        raise KeyboardInterrupt
    if caught is not None:
        os.kill(os.getpid(), caught)  # as it would have ended without children
        raise RetryableError(f"The training was ended by {caught.name}.", "Run the same command to resume.")


def _meeting(task: Mapping[str, Any], nodes: Nodes | None) -> dict[str, Any]:
    """Where the processes meet, in torchrun's words."""
    if nodes is None:
        return {
            "min_nodes": 1,
            "max_nodes": 1,
            "run_id": uuid.uuid4().hex,
            "rdzv_endpoint": "localhost:0",  # any free port
            "local_addr": "localhost",  # a container's own name need not resolve
        }
    return {
        "min_nodes": nodes.count,
        "max_nodes": nodes.count,
        "run_id": files.digest(task),  # who does something else is not met
        "rdzv_endpoint": f"{nodes.host}:{nodes.port}",
        "rdzv_configs": {"is_host": nodes.rank == 0, "read_timeout": MEET, "join_timeout": MEET},
        "local_addr": nodes.address(),
    }


def _handed_over(folder: Path) -> list[dict[str, Any]]:
    """What the ranks have left, the first first."""
    found = [read_json(path) for path in folder.rglob("error.json")]
    return sorted((told["cliprd"] for told in found if "cliprd" in told), key=lambda told: float(told["time"]))


def _cause(told: Sequence[Mapping[str, Any]], codes: Mapping[int, int]) -> Exception:
    """Why it all ended: an error that a rank tells of; else one that ended without a word; else a lost contact.

    Args:
        codes: exit code by rank of those that torchrun saw fail; negative: a signal.
    """
    lost = [one for one in told if one["kind"] == LostContactError.__name__]
    own = [one for one in told if one not in lost]
    # SIGTERM last: the launcher itself sends it to those that are left
    mute = sorted(set(codes) - {one["rank"] for one in told}, key=lambda rank: (codes[rank] == -signal.SIGTERM, rank))
    if not own and mute:
        rank, code = mute[0], codes[mute[0]]
        if code < 0:
            name = signal.Signals(-code).name
            reason = " (out of memory?)" if name == "SIGKILL" else ""
            return RetryableError(
                f"Rank {rank} was ended by {name}{reason}.", "Run the same command to resume from the last checkpoint."
            )
        return RuntimeError(f"rank {rank} ended with exit code {code}")
    first = (own or lost)[0]
    kind = RetryableError if first in lost else getattr(errors, first["kind"], None)
    if isinstance(kind, type) and issubclass(kind, CliprdError):
        return kind(first["problem"], first["remedy"])
    defect = RuntimeError(f"rank {first['rank']}: {first['kind']}: {first['problem']}")
    defect.add_note(first["trace"])
    return defect


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """The launcher takes signal handlers over and does not give them back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):  # not in the main thread: none were taken
                signal.signal(number, handler)


@contextlib.contextmanager
def _torchrun_silent() -> Iterator[None]:
    """Its loggers tell of every failure at length; what is raised here says it in one line."""
    names = [name for name in logging.Logger.manager.loggerDict if name.startswith("torch.distributed")]
    before = {name: logging.getLogger(name).disabled for name in names}
    for name in names:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
