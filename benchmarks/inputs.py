"""What `dvc repro` pays to look at data that did not change: `cliprd inputs` on many files.

    python benchmarks/inputs.py [--files N] [--bytes N] [--rounds N]

A raw tar, an image behind a table or an image and its caption are a file each; none is read again once it is known.
`first` hashes them all. The process's start is in every figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from _record import save

KINDS = {"webdataset": "raw", "csv": "raw/t.csv", "folder": "raw"}


def main() -> None:
    """Measure and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=1000)
    arguments.add_argument("--bytes", type=int, default=100_000, help="of a file")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as room:
            folder = build(Path(room), kind, options.files, options.bytes)
            os.environ["CLIPRD_SCRATCH"] = str(folder / "scratch")
            time.sleep(3)  # times of a moment ago are not believed
            command = [f"{Path(sys.executable).parent}/cliprd", "inputs", "--output", "work/inputs"]
            (first, _), *again = (seconds(folder, command) for _ in range(1 + options.rounds))
            wall, cpu = zip(*again, strict=True)
            rows.append(
                {
                    "kind": kind,
                    "first_s": first,
                    "median_s": statistics.median(wall),
                    "fastest_s": min(wall),
                    "cpu_s": statistics.median(cpu),
                }
            )
    save("inputs", rows, files=options.files, bytes=options.bytes, rounds=options.rounds)


def build(folder: Path, kind: str, files: int, size: int) -> Path:
    """Files of random bytes, and parameters that name them; a table or captions where the kind has them."""
    raw = folder / "raw"
    raw.mkdir()
    endings = {"webdataset": (".tar",), "csv": (".png",), "folder": (".png", ".txt")}[kind]
    for number in range(files // len(endings)):
        for ending in endings:
            (raw / f"{number:05d}{ending}").write_bytes(os.urandom(size))
    if kind == "csv":
        lines = (f"{number:05d}.png\tcaption {number}" for number in range(files))
        (raw / "t.csv").write_text("\n".join(["filepath\ttitle", *lines]) + "\n")
    task = folder / "tasks/one/test"
    task.mkdir(parents=True)
    (task / "nshards.txt").write_text("1")
    (task / "0.tar").write_bytes(os.urandom(size))
    tree = {"data": {"kind": kind, "path": KINDS[kind]}, "benchmark": {"tasks": "tasks"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    return folder


def seconds(folder: Path, command: list[str]) -> tuple[float, float]:
    """Wall and processor time of a command; the latter does not grow with other load on the machine."""
    began, used = time.perf_counter(), os.times()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    now = os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return time.perf_counter() - began, cpu


if __name__ == "__main__":
    main()
