"""What tracking costs a training: steps with a reader beside it against steps without, in turns.

A real server (MLflow on PostgreSQL, its artifacts on S3) takes every record. Short trainings with tracking and without
alternate, --seconds each; each pair of neighbours gives one ratio, and the table their median and its 95% bootstrap
interval, of two times: `cpu` is what this process computes in a step, all its threads together, which is what tracking
takes from a training; `wall` is what passes, in which the server and everything else on this machine take part. The
first pair, in which MLflow is imported, is left out.
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

SKIPPED = 4.0  # seconds at the beginning of each training: start-up, and the run that is created once


class Done(Exception):
    """Enough was measured."""


class Watch:
    """Called with every record; notes what the steps took, and ends the training."""

    def __init__(self, seconds: float) -> None:
        self._begins = time.perf_counter() + SKIPPED
        self._ends = self._begins + seconds
        self._first: tuple[float, float] | None = None
        self._records = 0
        self.wall = self.cpu = 0.0  # seconds from one record to the next

    def __call__(self, record: Any) -> None:
        """Take the time."""
        wall, cpu = time.perf_counter(), time.process_time()
        if self._first is None:
            if wall > self._begins:
                self._first = wall, cpu
            return
        self._records += 1
        if wall > self._ends:
            self.wall, self.cpu = (
                (now - first) / self._records for now, first in zip((wall, cpu), self._first, strict=True)
            )
            raise Done


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
    from tests.distill.rooms import make_params, open_rooms

    params = make_params(
        folder, method="clip_rd-exp", log_every=log_every, epochs=100_000, checkpoint_every=10**9, batch_size=48
    )
    student = parameters.load(Path(__file__).parents[1] / "params.yaml").student
    params = params.model_copy(update={"student": student})
    section = params.tracking.model_copy(update={"uri": uri, "experiment": "benchmark"})
    tracked = params.model_copy(update={"tracking": section})
    inputs = {"shards": folder / "shards", "cache": folder / "cache"}
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {"cpu": [], "wall": []}
    for turn in range(turns):
        settings = params if turn % 2 else tracked
        place = Path(tempfile.mkdtemp(dir=folder))
        with contextlib.suppress(Done), tracking.following(settings, "distill", inputs, place):
            watch = Watch(seconds)
            train(settings, *open_rooms(folder, settings), place, watch)
        times["cpu"].append(watch.cpu)
        times["wall"].append(watch.wall)
    row: dict[str, Any] = {"log_every": log_every, "pairs": turns // 2 - 1}
    for name, (_, _, *seen) in times.items():
        pairs = np.array([a / b for a, b in zip(seen[::2], seen[1::2], strict=True)])
        drawn = np.median(np.random.default_rng(0).choice(pairs, (2000, len(pairs))), axis=1)
        row |= {
            f"{name}_step_ms": 1000 * statistics.median(seen[1::2]) / log_every,
            f"{name}_cost": float(np.median(pairs) - 1),
            f"{name}_low": float(np.quantile(drawn, 0.025) - 1),
            f"{name}_high": float(np.quantile(drawn, 0.975) - 1),
        }
    return row


def main() -> None:
    """Measure, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log-every", type=int, nargs="+", default=[1, 10], help="steps to a record")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one training")
    parser.add_argument("--turns", type=int, default=24)
    options = parser.parse_args()
    from cliprd.tracking import follow
    from tests.mlflow_server import running

    follow.LAST_WAIT = 60.0
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
