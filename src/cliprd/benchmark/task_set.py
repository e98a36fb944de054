"""The tasks of a folder, here or in S3: found, loaded, and what identifies their content.

A task is a folder of the root, or of a folder of it: `vtab/cifar10` is the task `vtab-cifar10`, as CLIP_benchmark names
it. A task of a kind that cannot be scored is left out by name and the others run; a damaged one is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cliprd import storage
from cliprd.benchmark.tasks import SPLIT, TEXTS, Task, UnsupportedTaskError, fingerprint, load_task
from cliprd.errors import InputError, ParamsError
from cliprd.manifest import digest
from cliprd.params import Benchmark


class TaskSet(NamedTuple):
    """What a benchmark scores.

    Attributes:
        tasks: at least one.
        left_out: task → why it is not scored.
    """

    tasks: tuple[Task, ...]
    left_out: Mapping[str, str]


def fetch_tasks(section: Benchmark) -> TaskSet:
    """The tasks of `benchmark.tasks`, brought here where they are in S3: only `benchmark.names`, and only test data.

    Raises:
        As `load_tasks`. RetryableError: the network or the store failed.
    """
    names = None if section.names is None else [_named(name) for name in section.names]

    def wanted(file: str) -> bool:
        first, *rest = file.split("/")
        chosen = names is None or first in names or (len(rest) > 1 and f"{first}-{rest[0]}" in names)
        return chosen and _counts(file)

    return load_tasks(storage.fetch_tree(section.tasks, wanted), section.names)


def load_tasks(root: Path, names: Sequence[str] | None = None) -> TaskSet:
    """The tasks under `root`, by name in alphabetical order, or those in `names`, in that order.

    Raises:
        ParamsError: a name is not there, or is of a task that cannot be scored.
        InputError: the folder or a task in it is missing, empty or damaged, or none can be scored.
    """
    folders = _local_folders(_root(str(root)))
    tasks: list[Task] = []
    left_out: dict[str, str] = {}
    for name in _chosen(str(root), folders, names):
        try:
            tasks.append(load_task(root / folders[name], name))
        except UnsupportedTaskError as error:
            if names is not None:
                raise ParamsError(f"benchmark.names: task '{name}' of {root}: {error}.", "Remove it.") from error
            left_out[name] = str(error)
    if not tasks:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(f"benchmark.tasks: no task of {root} can be scored ({reasons}).", "Add one that can.")
    return TaskSet(tuple(tasks), left_out)


def versions(section: Benchmark) -> dict[str, str]:
    """Task → what identifies its content, without loading it; of tasks in S3 the ETags, without bringing them here.

    Tasks of kinds that cannot be scored are among them.

    Raises:
        ParamsError: a name is not there. InputError: there are no tasks, or a file cannot be read.
        RetryableError: the network or the store failed.
    """
    if not storage.is_s3(section.tasks):
        root = _root(section.tasks)
        folders = _local_folders(root)
        return {name: fingerprint(root / folders[name]) for name in _chosen(str(root), folders, section.names)}
    files = {file: version for file, version in storage.versions(section.tasks).items() if "/" in file}
    folders = _folders(section.tasks, {str(parent) for file in files for parent in PurePosixPath(file).parents[:-1]})
    return {
        name: digest(
            {file: version for file, version in files.items() if file.startswith(f"{folders[name]}/") and _counts(file)}
        )
        for name in _chosen(section.tasks, folders, section.names)
    }


def check(section: Benchmark) -> None:
    """Load the tasks and forget them; those in S3 are not brought here for it.

    Raises:
        ParamsError, InputError: see `load_tasks`.
    """
    if not storage.is_s3(section.tasks):
        load_tasks(Path(section.tasks), section.names)


def _root(place: str) -> Path:
    root = Path(place)
    if not root.is_dir():
        raise InputError(f"benchmark.tasks: folder {root} does not exist.", "Set benchmark.tasks in params.yaml.")
    if broken := [p.name for p in root.iterdir() if p.is_symlink() and not p.exists()]:
        raise InputError(f"{root / broken[0]} is a link to nothing.", "Mend or remove it.")
    return root


def _local_folders(root: Path) -> dict[str, str]:
    below = [path for pattern in ("*", "*/*", "*/*/*") for path in root.glob(pattern) if path.is_dir()]
    return _folders(str(root), {path.relative_to(root).as_posix() for path in below})


def _folders(root: str, below: Collection[str]) -> dict[str, str]:
    """Task → its folder.

    Args:
        root: for messages. below: all folders under it, relative to it, at least three levels deep.
    """
    if SPLIT in below:
        raise InputError(
            f"benchmark.tasks: {root} is itself a task.", "Set benchmark.tasks to the folder that holds it."
        )
    found: dict[str, str] = {}
    for top in sorted(folder for folder in below if "/" not in folder and not folder.startswith(".")):
        inside = [folder for folder in below if folder.startswith(f"{top}/") and folder.count("/") == 1]
        inside = sorted(folder for folder in inside if not folder.startswith(f"{top}/."))
        several = f"{top}/{SPLIT}" not in below and any(f"{folder}/{SPLIT}" in below for folder in inside)
        for folder in inside if several else [top]:
            name = _named(folder)
            if name in found:
                raise InputError(f"benchmark.tasks: {root} has task '{name}' twice.", f"Rename {folder}.")
            found[name] = folder
    if not found:
        raise InputError(f"benchmark.tasks: {root} holds no task folders.", "Each task is a folder: see the README.")
    return found


def _chosen(root: str, folders: Mapping[str, str], names: Sequence[str] | None) -> list[str]:
    if names is None:
        return sorted(folders)
    for name in names:
        if _named(name) not in folders:
            near = difflib.get_close_matches(_named(name), folders, n=1, cutoff=0.4)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            there = ", ".join(sorted(folders))
            raise ParamsError(f"benchmark.names: no task '{name}' in {root}.", f"{hint}There are: {there}.")
    return list(dict.fromkeys(map(_named, names)))


def _named(folder: str) -> str:
    return folder.replace("/", "-")


def _counts(file: str) -> bool:
    """Whether a file below the root is one that a task is read from: no training data, no notes."""
    *folders, name = file.split("/")
    return name in TEXTS or folders[-1:] == [SPLIT]
