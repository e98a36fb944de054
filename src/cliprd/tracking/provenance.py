"""What code and data versions a run was made from, as tags; outside of a repository there are simply none."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from pathlib import Path

from cliprd import __version__, files
from cliprd.artifact import identity


def revisions(folder: Path | None = None) -> dict[str, str]:
    """Tags of the git and DVC revisions of the repository around `folder` (the working directory), of code and user.

    `mlflow.source.git.commit` is what MLflow's column "Version" shows; `git.dirty` says whether files differ from it.
    `dvc.lock` is the sha256 of that file: it names the version of every input and output that DVC tracks. Under
    `dvc exp run`, `dvc.experiment` is its name.
    """
    folder = folder or Path.cwd()
    tags = {
        "cliprd.code": f"{__version__}+{identity.digest('cliprd.stages.distill')[:12]}",
        "mlflow.source.name": "cliprd distill",
    }
    if commit := _git(folder, "rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = tags["git.commit"] = commit
        tags["git.dirty"] = "yes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "no"
        if (branch := _git(folder, "rev-parse", "--abbrev-ref", "HEAD")) and branch != "HEAD":
            tags["git.branch"] = branch
    root = _git(folder, "rev-parse", "--show-toplevel")
    lock = Path(root or folder) / "dvc.lock"
    if lock.is_file():
        tags["dvc.lock"] = files.sha256_file(lock)
    for tag, variable in (("dvc.experiment", "DVC_EXP_NAME"), ("dvc.baseline", "DVC_EXP_BASELINE_REV")):
        if value := os.environ.get(variable):
            tags[tag] = value
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _git(folder: Path, *arguments: str) -> str:
    try:
        found = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
