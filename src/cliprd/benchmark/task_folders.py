"""Finds the tasks of a local or S3 folder and their fingerprints, without loading them.

A task is a folder one or two levels below the root: `vtab/cifar10` is the task `vtab-cifar10`, as CLIP_benchmark names
it. Its files are described in `benchmark.tasks`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cliprd import storage
from cliprd.errors import InputError, ParamsError
from cliprd.files import digest
from cliprd.params import Benchmark

CLASSES, TEMPLATES, TYPE, SPLIT = "classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt", "test"
TEXTS = (CLASSES, TEMPLATES, TYPE)


def versions(section: Benchmark) -> dict[str, str]:
    """Task → fingerprint of its content: of file hashes, or in S3 of ETags, without download.

    Tasks of unsupported kinds are included.

    Raises:
        ParamsError: a task name does not exist. InputError: there are no tasks, or a file cannot be read.
        RetryableError: the network or the store failed.
    """
    if not storage.is_s3(section.tasks):
        return {name: fingerprint(folder) for name, folder in local(section.tasks, section.names).items()}
    files = {file: version for file, version in storage.versions(section.tasks).items() if "/" in file}
    folders = _folders(section.tasks, {str(parent) for file in files for parent in PurePosixPath(file).parents[:-1]})
    return {
        name: digest(
            {file: version for file, version in files.items() if file.startswith(f"{folders[name]}/") and counts(file)}
        )
        for name in _chosen(section.tasks, folders, section.names)
    }


def fingerprint(folder: Path) -> str:
    """sha256 of the relevant files of a task's folder, of any kind."""
    parts = [folder / name for name in (*TEXTS, f"{SPLIT}/nshards.txt") if (folder / name).is_file()]
    files = storage.fingerprints(str(path) for path in (*parts, *sorted((folder / SPLIT).glob("*.tar"))))
    return digest({os.path.relpath(path, folder): content for path, content in files.items()})


def local(tasks: str, names: Sequence[str] | None) -> dict[str, Path]:
    """Task → its folder, for the tasks of a local folder; `names` as `benchmark.names`.

    Raises:
        ParamsError: a task name does not exist. InputError: the folder is missing, or there are no tasks in it.
    """
    root = Path(tasks)
    if not root.is_dir():
        problem = "is no folder" if root.exists() else "does not exist"
        raise InputError(
            f"benchmark.tasks: {root} {problem}.", "Set benchmark.tasks to the folder that holds the tasks."
        )
    if broken := [p.name for p in root.iterdir() if p.is_symlink() and not p.exists()]:
        raise InputError(f"{root / broken[0]} is a broken symbolic link.", "Fix or remove it.")
    below = [path for pattern in ("*", "*/*", "*/*/*") for path in root.glob(pattern) if path.is_dir()]
    folders = _folders(str(root), {path.relative_to(root).as_posix() for path in below})
    return {name: root / folders[name] for name in _chosen(str(root), folders, names)}


def _folders(root: str, below: Collection[str]) -> dict[str, str]:
    """Task → its folder.

    Args:
        root: for messages. below: paths of all folders under it, relative to it, at least three levels deep.
    """
    if SPLIT in below:
        raise InputError(
            f"benchmark.tasks: {root} is itself a task.", "Set benchmark.tasks to the folder that holds it."
        )
    folders: dict[str, str] = {}
    for top in sorted(folder for folder in below if "/" not in folder and not folder.startswith(".")):
        inside = [folder for folder in below if folder.startswith(f"{top}/") and folder.count("/") == 1]
        inside = sorted(folder for folder in inside if not folder.startswith(f"{top}/."))
        is_group = f"{top}/{SPLIT}" not in below and any(f"{folder}/{SPLIT}" in below for folder in inside)
        for folder in inside if is_group else [top]:
            name = named(folder)
            if name in folders:
                raise InputError(f"benchmark.tasks: two folders of {root} are task '{name}'.", f"Rename {folder}.")
            folders[name] = folder
    if not folders:
        raise InputError(f"benchmark.tasks: {root} holds no task folders.", "Each task is a folder: see the README.")
    return folders


def _chosen(root: str, folders: Mapping[str, str], names: Sequence[str] | None) -> list[str]:
    if names is None:
        return sorted(folders)
    for name in names:
        if named(name) not in folders:
            near = difflib.get_close_matches(named(name), folders, n=1, cutoff=0.4)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            known = ", ".join(sorted(folders))
            raise ParamsError(f"benchmark.names: no task '{name}' in {root}.", f"{hint}There are: {known}.")
    return list(dict.fromkeys(map(named, names)))


def named(folder: str) -> str:
    """The task's name of a folder that is relative to `benchmark.tasks`."""
    return folder.replace("/", "-")


def counts(file: str) -> bool:
    """Whether a task is read from this file below the root; training data and other files are not."""
    *folders, name = file.split("/")
    return name in TEXTS or folders[-1:] == [SPLIT]
