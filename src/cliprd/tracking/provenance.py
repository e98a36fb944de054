"""What code and data versions a run was made from, as tags; outside of a repository there are simply none."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from pathlib import Path

from cliprd import __version__, files
from cliprd.artifact import identity


def revisions() -> dict[str, str]:
    """Tags of the git and DVC revisions of the repository around the working directory, of code and user.

    `mlflow.source.git.commit` is what MLflow's column "Version" shows; `git.dirty` says whether files differ from it.
    `dvc.lock` is the sha256 of that file: it names the version of every input and output that DVC tracks. Under
    `dvc exp run`, `dvc.experiment` is its name.
    """
    tags = {
        "cliprd.code": f"{__version__}+{identity.digest('cliprd.stages.distill')[:12]}",
        "mlflow.source.name": "cliprd distill",
    }
    commit, changed = git_head()
    if commit:
        tags["mlflow.source.git.commit"] = tags["git.commit"] = commit
        tags["git.dirty"] = "yes" if changed else "no"
        if (branch := _git("rev-parse", "--abbrev-ref", "HEAD")) and branch != "HEAD":
            tags["git.branch"] = branch
    lock = Path(_git("rev-parse", "--show-toplevel"), "dvc.lock")
    if lock.is_file():
        tags["dvc.lock"] = files.sha256_file(lock)
    for tag, variable in (("dvc.experiment", "DVC_EXP_NAME"), ("dvc.baseline", "DVC_EXP_BASELINE_REV")):
        if value := os.environ.get(variable):
            tags[tag] = value
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def git_head() -> tuple[str, bool]:
    """git's commit in the working directory, and whether files differ from it; "" outside a repository."""
    commit = _git("rev-parse", "HEAD")
    return commit, bool(commit and _git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str:
    try:
        ran = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""
