"""`cliprd doctor`: reports what is installed, what is missing, and how to install it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from cliprd import __version__
from cliprd.errors import CliprdError
from cliprd.extras import install
from cliprd.machine import cores
from cliprd.names import visible

if TYPE_CHECKING:
    from cliprd.params import Params

SETS = {"all", "pipelines", "remote"}  # extras of other extras' packages
PROGRAMS = {
    "git": ("versions of code and data", "apt-get install git"),
    "docker": ("container images and local pipeline runs", "apt-get install docker.io"),
    "chromium": ("the report page's test", "apt-get install chromium"),
}


def requirements() -> dict[str, list[str]]:
    """Extra → the packages it asks for, as the installed cliprd declares them; "" holds those of the core.

    `all` and names kept for old commands are left out.
    """
    packages: dict[str, list[str]] = {"": []}
    for line in importlib.metadata.requires("cliprd") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if extra is None or extra[1] not in SETS:
            packages.setdefault(extra[1] if extra else "", []).append(name)
    return packages


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
    packages = requirements()
    out.write(f"cliprd {__version__}, Python {platform.python_version()}, {platform.platform()}\n\ncore\n")
    for package in packages.pop(""):
        version = _version(package)
        missing |= version is None
        line("✓" if version else "✗", package, version or "missing: pip install cliprd")

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

    for extra, names in packages.items():
        out.write(f"\noptional: {extra}\n")
        for package in names:
            version = _version(package)
            line("✓" if version else "–", package, version or f"missing: {install(extra)}")

    out.write("\nprograms\n")
    for program, (purpose, remedy) in PROGRAMS.items():
        program_path = shutil.which(program)
        line("✓" if program_path else "–", program, program_path or f"missing, needed for {purpose}: {remedy}")

    out.write("\ndisk\n")
    free = shutil.disk_usage(".").free / 2**30
    line("✓" if free > 2 else "✗", ".", f"{free:.1f} GiB free{'' if free > 2 else ': the demo needs 2 GiB'}")
    code = 5 if missing or sys.version_info < (3, 11) else 0
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
