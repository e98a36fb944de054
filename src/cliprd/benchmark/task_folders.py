"""Which tasks a folder holds, here or in S3, and what identifies their content; nothing is loaded.

A task is a folder of the root, or of a folder of it: `vtab/cifar10` is the task `vtab-cifar10`, as CLIP_benchmark names
it. What its files mean: `benchmark.tasks`.
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
    """Task → what identifies its content, without loading it; of tasks in S3 the ETags, without bringing them here.

    Tasks of kinds that cannot be scored are among them.

    Raises:
        ParamsError: a name is not there. InputError: there are no tasks, or a file cannot be read.
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
    """sha256 of all files of a task's folder that count, whatever its kind; nothing is loaded."""
    parts = [folder / name for name in (*TEXTS, f"{SPLIT}/nshards.txt") if (folder / name).is_file()]
    files = storage.fingerprints(str(path) for path in (*parts, *sorted((folder / SPLIT).glob("*.tar"))))
    return digest({os.path.relpath(path, folder): content for path, content in files.items()})


def local(place: str, names: Sequence[str] | None) -> dict[str, Path]:
    """Task → its folder, of those in a folder here; `names` as `benchmark.names`.

    Raises:
        ParamsError: a name is not there. InputError: the folder is missing, or there are no tasks in it.
    """
    root = Path(place)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise InputError(f"benchmark.tasks: {root} {what}.", "Set benchmark.tasks to the folder that holds the tasks.")
    if broken := [p.name for p in root.iterdir() if p.is_symlink() and not p.exists()]:
        raise InputError(f"{root / broken[0]} is a link to nothing.", "Mend or remove it.")
    below = [path for pattern in ("*", "*/*", "*/*/*") for path in root.glob(pattern) if path.is_dir()]
    folders = _folders(str(root), {path.relative_to(root).as_posix() for path in below})
    return {name: root / folders[name] for name in _chosen(str(root), folders, names)}


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
            name = named(folder)
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
        if named(name) not in folders:
            near = difflib.get_close_matches(named(name), folders, n=1, cutoff=0.4)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            there = ", ".join(sorted(folders))
            raise ParamsError(f"benchmark.names: no task '{name}' in {root}.", f"{hint}There are: {there}.")
    return list(dict.fromkeys(map(named, names)))


def named(folder: str) -> str:
    """The task of a folder, which is given relative to `benchmark.tasks`."""
    return folder.replace("/", "-")


def counts(file: str) -> bool:
    """Whether a file below the root is one that a task is read from: no training data, no notes."""
    *folders, name = file.split("/")
    return name in TEXTS or folders[-1:] == [SPLIT]
