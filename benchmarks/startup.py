"""What it costs to start: `cliprd --help` against `python -c pass`, alternating, in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from _record import save

RUNS = 21


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure and save."""
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "cliprd --help": ["cliprd", "--help"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command)
    for _ in range(RUNS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    base = statistics.median(times["python -c pass"])
    save(
        "startup",
        [
            {"command": name, "median_ms": 1000 * statistics.median(t), "ratio": statistics.median(t) / base}
            for name, t in times.items()
        ],
        runs=RUNS,
    )


if __name__ == "__main__":
    main()
