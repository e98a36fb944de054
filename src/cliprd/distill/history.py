"""`history.csv` (the same for the same work) and `volatile/throughput.csv` (as fast as the machine was)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from cliprd.artifact import manifest
from cliprd.distill.record import Record
from cliprd.files import atomic_write

HISTORY = "history.csv"
THROUGHPUT = f"{manifest.VOLATILE_DIR}/throughput.csv"
STUDENT_SCALE = "student_scale"  # the first of the history's scales: the columns before it are terms


class Table:
    """A CSV whose first column is `step`; rows are appended, and a resumed training cuts those after its checkpoint."""

    def __init__(self, path: Path, columns: Sequence[str], *, keep_to: int) -> None:
        rows = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                lines = file.read().splitlines(keepends=True)
            whole = (line for line in lines[1:] if line.endswith("\n") and line.partition(",")[0].isdigit())
            rows = [line for line in whole if int(line.partition(",")[0]) <= keep_to]
        with atomic_write(path, "w") as file:
            file.write(",".join(columns) + "\n")
            file.writelines(rows)
        self._file = path.open("a", encoding="utf-8", newline="")

    def append(self, values: Sequence[float | int]) -> None:
        """Add a row; 9 digits give a float32 back exactly."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([v if isinstance(v, int) else format(v, ".9g") for v in values])
        self._file.write(line.getvalue())
        self._file.flush()

    def sync(self) -> None:
        """To the disk: a checkpoint relies on the rows before it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more rows."""
        self._file.close()


class History:
    """Both tables of one training.

    Args:
        output: the student's folder.
        terms, scales: names of the loss terms and of the scales, fixed for the training.
        keep_to: step of the checkpoint that the training goes on from, 0 for none.
    """

    def __init__(self, output: Path, terms: Sequence[str], scales: Sequence[str], *, keep_to: int) -> None:
        self._terms, self._scales = tuple(terms), tuple(scales)
        columns = ["step", "epoch", "lr", "loss", *terms, *scales, "grad_norm"]
        self._history = Table(output / HISTORY, columns, keep_to=keep_to)
        self._throughput = Table(
            output / THROUGHPUT, ["step", "images_per_second", "data_wait", "time"], keep_to=keep_to
        )

    def append(self, record: Record) -> None:
        """Add a record to both, to the history last: a reader that sees it there finds the rest."""
        terms = [record.terms[name] for name in self._terms]
        scales = [record.scales[name] for name in self._scales]
        self._throughput.append([record.step, record.images_per_second, record.data_wait, record.time])
        self._history.append([record.step, record.epoch, record.lr, sum(terms), *terms, *scales, record.grad_norm])

    def sync(self) -> None:
        """To the disk."""
        self._history.sync()

    def close(self) -> None:
        """No more records."""
        self._history.close()
        self._throughput.close()


def last_row(output: Path) -> dict[str, float]:
    """The last row of history.csv by column."""
    with (output / HISTORY).open(encoding="utf-8", newline="") as file:
        *_, row = csv.DictReader(file)
    return {name: float(value) for name, value in row.items()}
