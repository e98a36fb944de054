"""The records of a training, from the files in its folder to MLflow: in order, and each once.

A record's metrics travel in one request, which the server takes completely or not at all. So the last step that has one
of them tells which records the server has, also where its answer was lost or the training was resumed elsewhere.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.distill.history import HISTORY, STUDENT_SCALE, THROUGHPUT
from cliprd.errors import InputError
from cliprd.names import key
from cliprd.storage import Location

SYSTEM = f"{manifest.VOLATILE_DIR}/system.csv"  # of the machine; written by the reader (`follow`)
SYSTEM_COLUMNS = ("step", "name", "value")
WITNESS = "loss/total"  # in every record
MOST = 1000  # metrics in one request: MLflow's limit


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of a step; `time` in milliseconds since the epoch."""

    step: int
    time: int
    metrics: Mapping[str, float]


class Records:
    """The records in a student's folder, finished or not, after a step.

    Attributes:
        latest: time of the last record that was read; None before there is one.
    """

    def __init__(self, folder: Location, after: int = 0) -> None:
        self._tails = [Tail(storage.join(folder, name)) for name in (HISTORY, THROUGHPUT, SYSTEM)]
        self._beside: defaultdict[int, dict[str, float]] = defaultdict(dict)  # step → all but its row of the history
        self._after = after
        self.latest: int | None = None

    def read(self) -> list[StepMetrics]:
        """Those that have come since the last call. A training writes a step's row of the history last."""
        history, pace, system = (tail.rows() for tail in self._tails)
        for row in pace:
            self._beside[int(row.pop("step"))] |= row
        for row in system:
            self._beside[int(row["step"])][row["name"]] = row["value"]
        entries = []
        for row in history:
            step = int(row.pop("step"))
            beside = self._beside.pop(step, {})
            self.latest = int(beside.pop("time", 1000 * time.time()))  # an older cliprd has not noted it
            if step > self._after:
                entries.append(StepMetrics(step, self.latest, {**step_metrics(row), **beside}))
        return entries


class Tail:
    """The rows that a CSV has gained since the last call: complete lines. Damaged ones are reported and left out."""

    def __init__(self, url: str) -> None:
        self._url, self._end, self._columns = url, 0, list[str]()

    def rows(self) -> list[dict[str, Any]]:
        """The new ones by column, as numbers but for `name`."""
        try:
            with storage.open_stream(self._url) as file:
                if self._end:
                    file.seek(self._end)
                data = file.read()
        except InputError:  # not there yet
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._end += len(complete)
        lines = csv.reader(io.StringIO(complete.decode("utf-8", "replace"), newline=""))
        self._columns = self._columns or next(lines, [])
        rows, damaged = [], 0
        for line in lines:
            try:
                cells = zip(self._columns, line, strict=True)
                rows.append({column: cell if column == "name" else float(cell) for column, cell in cells})
            except ValueError:
                damaged += 1
        if damaged:
            print(f"cliprd: warning: {self._url} is damaged: {damaged} of its lines are left out.", file=sys.stderr)
        return rows


def step_metrics(row: Mapping[str, float]) -> dict[str, float]:
    """A row of the history as metrics: `loss/<term>`, `loss/total`, `scale/<name>`, the others by their own names."""
    columns = list(row)
    first, end = columns.index("loss") + 1, columns.index("grad_norm")
    scales = columns.index(STUDENT_SCALE) if STUDENT_SCALE in row else end
    return {
        **{key(f"loss/{name}"): row[name] for name in columns[first:scales]},
        WITNESS: row["loss"],
        **{key(f"scale/{name.removesuffix('_scale')}"): row[name] for name in columns[scales:end]},
        **{name: row[name] for name in ("epoch", "lr", "grad_norm")},
    }


def last_step(client: Any, run_id: str) -> int:
    """Of the records that the server has; 0 for none."""
    return max((metric.step for metric in client.get_metric_history(run_id, WITNESS)), default=0)


def send(client: Any, run_id: str, entries: list[StepMetrics]) -> None:
    """Send entries in order. All of them have arrived when it returns."""
    from mlflow.entities import Metric

    batch: list[Metric] = []
    for entry in entries:
        metrics = [Metric(name, value, entry.time, entry.step) for name, value in entry.metrics.items()]
        if len(batch) + len(metrics) > MOST:
            client.log_batch(run_id, metrics=batch)  # a record is never split
            batch = []
        batch += metrics
    if batch:
        client.log_batch(run_id, metrics=batch)
