"""What has moved: ratios of freshly written results against the committed ones; exit code 1 if one got worse.

    python benchmarks/guard.py [NAME ...] [--base REVISION] [--band 0.15] [--results FOLDER]

It measures nothing: run a benchmark, then this. Seconds differ from machine to machine, so only ratios are compared:
fields called `ratio` or `share`, or ending in `_ratio` or `_of_official`, row by row (a row is known by its words and
by the sizes in `SIZES`). One that moved by less than `--band` of itself counts as noise: medians of runs whose sides
alternate repeat within some ten per cent here. Which way is worse stands in `DIRECTIONS`; of a field that is not there,
it is only told that it moved.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

BAND = 0.15
SIZES = ("n", "chunk_size", "samples", "batch", "views", "shorter_side", "quality", "pairs", "seeds", "processes")
MORE, LESS, NEITHER = "more is better", "less is better", "not declared"
DIRECTIONS = {  # benchmark.field, the first that fits
    "loading.ratio": MORE,
    "step.*_ratio": MORE,
    "evaluation.ratio": MORE,
    "startup*.*": LESS,
    "growth.*": LESS,
    "*.throughput_ratio": MORE,
    "*.*speedup_ratio": MORE,
    "*.samples_ratio": MORE,
    "*.images_ratio": MORE,
    "*.time_ratio": LESS,
    "*.memory_ratio": LESS,
    "*.peak_ratio": LESS,
    "*_of_official": LESS,
    "*.share": LESS,
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Move:
    """One ratio in two results. `change` is the new over the old, less 1."""

    row: str
    field: str
    old: float
    new: float
    direction: str

    @property
    def change(self) -> float:
        """Relative to the old one; an old 0 that is no longer 0 has moved beyond any band."""
        return self.new / self.old - 1 if self.old else float(self.new != 0) * float("inf")

    def word(self, band: float) -> str:
        """`same`, `better`, `worse` or `moved`."""
        if abs(self.change) <= band:
            return "same"
        if self.direction == NEITHER:
            return "moved"
        return "better" if (self.change > 0) == (self.direction == MORE) else "worse"


def is_ratio(field: str, value: object) -> bool:
    """By its name; a row that has none of the measured kind holds None."""
    named = field in ("ratio", "share") or field.endswith(("_ratio", "_of_official"))
    return named and isinstance(value, int | float) and not isinstance(value, bool)


def direction(benchmark: str, field: str) -> str:
    """From `DIRECTIONS`."""
    return next((way for name, way in DIRECTIONS.items() if fnmatch(f"{benchmark}.{field}", name)), NEITHER)


def moves(benchmark: str, old: list[Row], new: list[Row]) -> Iterator[Move]:
    """Every ratio that both hold."""
    known = {_identity(row): row for row in old}
    for row in new:
        before = known.get(_identity(row), {})
        for field, value in row.items():
            if is_ratio(field, value) and is_ratio(field, before.get(field)):
                yield Move(_identity(row), field, before[field], value, direction(benchmark, field))


def lost(old: list[Row], new: list[Row]) -> list[str]:
    """Rows with a ratio that are no longer there: a benchmark that is not run any more cannot get worse unnoticed."""
    here = {_identity(row) for row in new}
    return [_identity(r) for r in old if _identity(r) not in here and any(is_ratio(f, v) for f, v in r.items())]


def _identity(row: Row) -> str:
    return ", ".join(
        str(value) if isinstance(value, str) else f"{field} {value}"
        for field, value in row.items()
        if isinstance(value, str) or (field in SIZES and not isinstance(value, float))
    )


def committed(path: Path, base: str) -> dict[str, Any] | None:
    """The file as it is in a revision, or None if it is not there."""
    command = ["git", "-C", str(path.parent), "show", f"{base}:./{path.name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def judge(path: Path, base: str, band: float) -> bool:
    """Tell of one result. Returns whether something got worse."""
    name, new, old = path.stem, json.loads(path.read_text(encoding="utf-8")), committed(path, base)
    if old is None:
        print(f"{name}: new, nothing to compare with in {base}")
        return False
    if old == new:
        print(f"{name}: as in {base}, not run again")
        return False
    found = list(moves(name, old["rows"], new["rows"]))
    words = [move.word(band) for move in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("same", "better", "worse", "moved") if word in words)
    print(f"{name}: {counts or 'no ratio in common'} (band ±{100 * band:.0f} %)")
    for what in ("device", "command"):
        if old[what] != new[what]:
            print(f"  another {what}: {old[what]}  ->  {new[what]}")
    for row in lost(old["rows"], new["rows"]):
        print(f"  gone: {row}")
    for move, word in zip(found, words, strict=True):
        if word != "same":
            print(f"  {word}: {move.row}: {move.field} {move.old:.3g} -> {move.new:.3g} "
                  f"({100 * move.change:+.0f} %, {move.direction})")  # fmt: skip
    return "worse" in words


def main() -> int:
    """Returns the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="NAME", help="results to compare; default: all")
    arguments.add_argument("--base", default="HEAD", metavar="REVISION")
    arguments.add_argument("--band", type=float, default=BAND, help=f"share of a ratio that is noise (default {BAND})")
    arguments.add_argument("--results", type=Path, default=Path(__file__).parent / "results", metavar="FOLDER")
    options = arguments.parse_args()
    paths = [options.results / f"{name}.json" for name in options.names] or sorted(options.results.glob("*.json"))
    if missing := [path for path in paths if not path.is_file()]:
        print(f"no result {', '.join(map(str, missing))}: run its benchmark first", file=sys.stderr)
        return 2
    worse = [judge(path, options.base, options.band) for path in paths]
    return int(any(worse))


if __name__ == "__main__":
    sys.exit(main())
