"""Loads the tasks of a local or S3 folder.

Tasks of unsupported kinds are left out and reported; a damaged task is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cliprd import storage
from cliprd.benchmark import task_folders
from cliprd.benchmark.tasks import Task, UnsupportedTaskError, load_task
from cliprd.errors import InputError, ParamsError
from cliprd.params import Benchmark


class TaskSet(NamedTuple):
    """What a benchmark scores.

    Attributes:
        tasks: at least one.
        left_out: task → reason why it is not scored.
    """

    tasks: tuple[Task, ...]
    left_out: Mapping[str, str]


def fetch_tasks(section: Benchmark) -> TaskSet:
    """The tasks of `benchmark.tasks`; from S3 only those in `benchmark.names` and only test data are downloaded.

    Raises:
        As `load_tasks`. RetryableError: the network or the store failed.
    """
    names = None if section.names is None else [task_folders.named(name) for name in section.names]

    def is_test_file(file: str) -> bool:
        first, *rest = file.split("/")
        chosen = names is None or first in names or (len(rest) > 1 and f"{first}-{rest[0]}" in names)
        return chosen and task_folders.counts(file)

    return load_tasks(storage.fetch_tree(section.tasks, is_test_file), section.names)


def load_tasks(root: Path, names: Sequence[str] | None = None) -> TaskSet:
    """The tasks under `root`, by name in alphabetical order, or those in `names`, in that order.

    Raises:
        ParamsError: a task name does not exist, or its kind is not supported.
        InputError: the folder or a task in it is missing, empty or damaged, or none can be scored.
    """
    tasks: list[Task] = []
    left_out: dict[str, str] = {}
    for name, folder in task_folders.local(str(root), names).items():
        try:
            tasks.append(load_task(folder, name))
        except UnsupportedTaskError as error:
            if names is not None:
                raise ParamsError(f"benchmark.names: task '{name}' of {root}: {error}.", "Remove it.") from error
            left_out[name] = str(error)
    if not tasks:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(f"benchmark.tasks: no task of {root} can be scored ({reasons}).", "Add one that can.")
    return TaskSet(tuple(tasks), left_out)


def check(section: Benchmark) -> None:
    """Check the tasks by loading them; tasks in S3 are not downloaded for this.

    Raises:
        ParamsError, InputError: see `load_tasks`.
    """
    if not storage.is_s3(section.tasks):
        load_tasks(Path(section.tasks), section.names)
