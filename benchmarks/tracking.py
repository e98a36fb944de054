"""What tracking costs a training: steps with it against steps without, in turns in one training.

A real server (MLflow on PostgreSQL, its artifacts on S3) takes every record. With tracking and without alternate every
--seconds; each pair of neighbours gives one ratio, and the table their median and its 95% bootstrap interval, of two
times: `cpu` is what this process computes in a step, all its threads together, which is what tracking takes from a
training; `wall` is what passes, in which the server and whoever else is on this machine take part. The first pair, in
which MLflow is imported, is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _record import save

sys.path.insert(0, str(Path(__file__).parents[1]))

SKIPPED = 1.5  # seconds at the beginning of each turn: what the turn before has left


class Done(Exception):
    """Enough was measured."""


class Turns:
    """Called with every record; notes what a turn's steps took, with tracking in every other turn."""

    def __init__(self, tracked: Any, seconds: float, turns: int) -> None:
        self._tracked, self._seconds, self._left = tracked, seconds, turns
        self.cpu: list[float] = []  # seconds from one record to the next, a mean a turn
        self.wall: list[float] = []
        self.records = 0
        self._context: Any = contextlib.nullcontext(lambda record: None)
        self._report: Any = None
        self._begun: tuple[float, float] | None = None
        self._skip = self._ends = 0.0
        self._count = 0

    def __call__(self, record: Any) -> None:
        """Take the time; begin the next turn where this one is over."""
        now, cpu = time.perf_counter(), time.process_time()
        if now < self._ends:
            if self._begun is not None:
                self._count += 1
            elif now > self._skip:
                self._begun = now, cpu
            self._report(record)
            return
        if self._begun is not None:
            self.wall.append((now - self._begun[0]) / (self._count + 1))
            self.cpu.append((cpu - self._begun[1]) / (self._count + 1))
            self.records += self._count + 1
        self._context.__exit__(None, None, None)
        if not self._left:
            raise Done
        tracks = self._left % 2 == 0
        self._left -= 1
        self._context = self._tracked() if tracks else contextlib.nullcontext(lambda record: None)
        self._report = self._context.__enter__()
        self._begun, self._count = None, 0
        self._skip = time.perf_counter() + SKIPPED
        self._ends = self._skip + self._seconds


@contextlib.contextmanager
def rooms() -> Iterator[Path]:
    """Shards and a teacher cache."""
    from tests.distill.rooms import build

    with tempfile.TemporaryDirectory() as place:
        build(Path(place))
        yield Path(place)


def measure(uri: str, folder: Path, log_every: int, seconds: float, turns: int) -> dict[str, Any]:
    """One line of the table."""
    import torch

    from cliprd import params as parameters
    from cliprd import tracking
    from cliprd.distill.train import train
    from cliprd.tracking.training import Training
    from tests.distill.rooms import make_params, open_rooms

    params = make_params(
        folder, method="clip_rd-exp", log_every=log_every, epochs=100_000, checkpoint_every=10**9, batch_size=48
    )
    params = params.model_copy(
        update={
            "student": parameters.load(Path(__file__).parents[1] / "params.yaml").student,
            "tracking": params.tracking.model_copy(update={"uri": uri, "experiment": "benchmark"}),
        }
    )
    place = Path(tempfile.mkdtemp(dir=folder))
    count = iter(range(turns))

    def tracked() -> Any:
        n = next(count)
        told = Training(name=f"turn-{n}", key=f"{place}-{n}", ablation={
            "key": str(place), "name": "ablation", "note": "", "params": {}, "tags": {}
        })  # fmt: skip
        return tracking.training_run(params, place / str(n), lambda: told)

    measured = Turns(tracked, seconds, turns)
    torch.set_num_threads(1)
    with contextlib.suppress(Done):
        train(params, *open_rooms(folder, params), place, measured)
    row: dict[str, Any] = {"log_every": log_every, "records": measured.records, "pairs": turns // 2 - 1}
    for name, times in (("cpu", measured.cpu[2:]), ("wall", measured.wall[2:])):
        pairs = np.array([a / b for a, b in zip(times[::2], times[1::2], strict=True)])
        drawn = np.median(np.random.default_rng(0).choice(pairs, (2000, len(pairs))), axis=1)
        row |= {
            f"{name}_step_ms": 1000 * statistics.median(times[1::2]) / log_every,
            f"{name}_cost": float(np.median(pairs) - 1),
            f"{name}_low": float(np.quantile(drawn, 0.025) - 1),
            f"{name}_high": float(np.quantile(drawn, 0.975) - 1),
        }
    return row


def main() -> None:
    """Measure, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log-every", type=int, nargs="+", default=[1, 10], help="steps to a record")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn")
    parser.add_argument("--turns", type=int, default=24)
    options = parser.parse_args()
    from cliprd.tracking import runs
    from tests.mlflow_server import running

    runs.LAST_WAIT = 60.0
    with tempfile.TemporaryDirectory() as logs, running(Path(logs)) as server, rooms() as folder:
        rows = [measure(server.uri, folder, n, options.seconds, options.turns) for n in options.log_every]
    save(
        "tracking",
        rows,
        student="params.yaml, batch of 48",
        turns=options.turns,
        seconds=options.seconds,
        server="MLflow on PostgreSQL, artifacts on S3",
    )


if __name__ == "__main__":
    main()
