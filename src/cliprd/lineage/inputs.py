"""Fingerprints of all external inputs of a pipeline, shared by DVC, Kubeflow and `cliprd retrain`.

docs/formats.md has their shape. Neither paths nor times are included: equal content gives equal bytes on any machine.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact import identity
from cliprd.benchmark.task_folders import versions
from cliprd.data.sources import inventory
from cliprd.distill import sections
from cliprd.errors import MachineError
from cliprd.files import atomic_write, digest, write_json
from cliprd.models.identity import weights_version
from cliprd.models.plugin import code_of
from cliprd.params import Params
from cliprd.reading import read_json

PARTS = ("data", "benchmark", "teacher")
STAGES = ("prepare", "teacher", "cache", "distill", "benchmark", "compare")


def look(params: Params) -> dict[str, Any]:
    """The current state of data, benchmark and teacher.

    Raises:
        ParamsError, InputError: data, tasks or weights that the parameters name are missing, or cannot be read.
        RetryableError: the network or the store failed.
    """
    weights = weights_version(params.teacher)
    return {
        "data": [{"name": part.name, "fingerprint": part.fingerprint} for part in inventory(params.data)],
        "benchmark": versions(params.benchmark),
        "teacher": {"weights": weights} if weights else {},
    }


def encode(part: Any) -> bytes:
    """Content of a part's file."""
    return (json.dumps(part, indent=1, sort_keys=True) + "\n").encode("ascii")


def files(params: Params) -> dict[str, bytes]:
    """Name → content of each file that `write` keeps: the parts, and `code/STAGE.json` for each stage."""
    return {f"{name}.json": encode(part) for name, part in {**look(params), **_code(params)}.items()}


def _code(params: Params) -> dict[str, Any]:
    """`code/STAGE` → its closure, remembered under what all of the sources hold: parsing them takes half a second."""
    teacher, training = code_of(params.teacher.name), sections.code(params)
    plugins = {"teacher": teacher, "cache": teacher, "benchmark": teacher, "distill": training[1:]}
    path = storage.scratch("code") / f"{digest([identity.sources(), plugins])}.json"
    ours = all(module.startswith("cliprd.") for module in (*teacher, *training))
    with contextlib.suppress(OSError, ValueError):
        if ours:
            return dict(read_json(path))
    found = {
        f"code/{stage}": dict(identity.closure(f"cliprd.stages.{stage}", *plugins.get(stage, ()))) for stage in STAGES
    }
    with contextlib.suppress(OSError):
        if ours:
            write_json(path, found)
    return found


def write(params: Params, folder: Path) -> list[str]:
    """Write `files` into `folder`; returns the names, without `.json`, of those that changed.

    Raises:
        MachineError: the folder cannot be written. Else as `look`.
    """
    changed: list[str] = []
    contents = files(params)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stray in folder.rglob(".*.tmp"):
            stray.unlink()  # left by a killed process
        for name, content in contents.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != content:
                changed.append(name.removesuffix(".json"))
                with atomic_write(path) as file:
                    file.write(content)
    except OSError as error:
        problem = f"{error.filename or folder} cannot be written: {error.strerror}."
        raise MachineError(problem, "Give another --output.") from error
    return changed
