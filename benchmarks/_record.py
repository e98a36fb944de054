"""What every benchmark shares: a printed table, and a JSON file with device, versions, command and date."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def device() -> str:
    """The processor, and the GPU where there is one, in words."""
    import os

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    words = f"{cpu}, {len(os.sched_getaffinity(0))} cores"
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            words += f", {torch.cuda.get_device_name()}"
    return words


def _no_place(argument: str) -> str:
    """Where things are on this machine is nobody's business: a path becomes PATH."""
    return "PATH" if Path(argument).is_absolute() or ".." in Path(argument).parts else argument


def save(name: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Print `rows` as a table and write benchmarks/results/<name>.json."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = [
        [f"{row.get(c):.4g}" if isinstance(row.get(c), float) else str(row.get(c, "")) for c in columns] for row in rows
    ]
    widths = [max(len(c), *(len(line[i]) for line in shown)) for i, c in enumerate(columns)]
    for line in [columns, ["-" * w for w in widths], *shown]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *map(_no_place, sys.argv[1:])]),
        "device": device(),
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in ("torch", "open_clip_torch", "dvc", "mlflow")},
        },
        **more,
        "rows": rows,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
