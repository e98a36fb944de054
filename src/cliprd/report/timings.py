"""Checks the timing files in `volatile/` folders, which no manifest covers.

A comparison or a gate continues without a damaged file, after a warning: timings are no part of the result.
"""

from __future__ import annotations

import csv
import functools
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cliprd.names import one_line

SPEED, THROUGHPUT = "speed.json", "throughput.csv"
THROUGHPUT_COLUMNS = ["step", "images_per_second", "data_wait", "time"]
MOST_BYTES = 64 << 20  # a million records of throughput take 40 MB
Figure = Annotated[float, Field(gt=0, lt=1e12, allow_inf_nan=False)]


class _Part(BaseModel):
    """Further keys are allowed."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Latency(_Part):
    median: Figure


class _Tower(_Part):
    latency_ms: _Latency
    per_second: Figure
    rounds: dict[str, Annotated[list[Figure], Field(max_length=1000)]] = {}
    batch_size: Annotated[int, Field(gt=0, lt=1 << 30)] | None = None


class _Speed(_Part):
    """speed.json; see docs/formats.md."""

    device: Annotated[str, Field(max_length=300)]
    threads: Annotated[int, Field(gt=0, lt=1_000_000)]
    precision: Annotated[str, Field(max_length=30)]
    image: _Tower
    text: _Tower

    @field_validator("device", "precision")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("control characters")
        return value


def intact(path: Path) -> Path | None:
    """`path` if it is a valid timing file; None if it is missing, or, after a warning, damaged."""
    if not os.path.lexists(path):
        return None
    try:
        status = path.stat()
        fault = _fault(path, status.st_mtime_ns, status.st_size) if path.is_file() else "it is no file"
    except OSError as error:
        fault = error.strerror or str(error)
    if fault:
        _warn(path, fault)
    return None if fault else path


@functools.lru_cache(maxsize=4096)
def _fault(path: Path, _changed: int, size: int) -> str:
    """What is wrong with a file; empty if it is valid."""
    if size > MOST_BYTES:
        return f"{size:,} bytes"
    try:
        data = path.read_text(encoding="utf-8")
        if path.name == THROUGHPUT:
            _check_throughput(data)
        else:
            _Speed.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        return f"{key}: {first['msg']}" if key else str(first["msg"])
    except (OSError, ValueError, csv.Error) as error:
        return str(error)
    return ""


def _check_throughput(data: str) -> None:
    if not data.endswith("\n"):
        raise ValueError("it ends within a line")
    rows = csv.reader(data.splitlines(), strict=True)
    if (head := next(rows)) not in (THROUGHPUT_COLUMNS, THROUGHPUT_COLUMNS[:3]):  # an older cliprd has no time
        raise ValueError(f"unknown columns {str(head)[:100]}")
    for number, row in enumerate(rows, 2):
        figures: list[Any] = [float(cell) for cell in row]  # ValueError names the cell
        if len(row) != len(head) or not row[0].isdecimal() or not (0 < figures[1] < 1e12 and 0 <= figures[2] <= 1):
            raise ValueError(f"line {number} is no record")


@functools.lru_cache(maxsize=4096)  # once for each file and fault
def _warn(path: Path, fault: str) -> None:
    print(f"cliprd: warning: {one_line(f'{path} is damaged ({fault[:200]}): continuing without it.')}", file=sys.stderr)
