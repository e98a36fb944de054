"""Finds and reads the lineage of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.errors import InputError
from cliprd.lineage.common import NAME, SCHEMA
from cliprd.lineage.record import with_code
from cliprd.reading import parse_json
from cliprd.storage import Location


def of(folder: Location) -> dict[str, Any]:
    """The lineage of a student, a benchmark, or a package that holds `student/` and `benchmark*/`.

    Of a package the benchmark's is returned, which has the scores; of several benchmarks the first one's.

    Raises:
        InputError: the folder has none, or it is damaged. RetryableError: the folder is in S3, and the network failed.
    """
    location = resolve(folder)
    for candidate in _candidates(location):
        if (tree := _read(candidate)) is not None:
            return tree
    data = storage.read_bytes(storage.join(location, manifest.NAME))
    if data is None:
        raise InputError(
            f"{folder} has no {NAME} and holds no student with one.",
            "Give a folder of `cliprd distill` or `cliprd benchmark`, or one that holds student/ and benchmark/.",
        )
    stage = manifest.read(location).stage
    if stage == "distill":
        raise InputError(
            f"{folder} was trained by a version of cliprd that recorded no lineage.",
            "Train it again with `cliprd distill`.",
        )
    if stage == "benchmark":
        raise InputError(
            f"{folder} is the benchmark of a teacher, or of a student without a lineage.",
            "Give a student's; one trained by a version of cliprd that recorded no lineage must be trained again.",
        )
    raise InputError(f"{folder} was made by stage '{stage}': only students have a lineage.", "Give a student's folder.")


def _candidates(folder: Location) -> Iterator[Location]:
    """The folder itself, then benchmarks and student in it, or in its `artifacts` (MLflow's layout)."""
    if isinstance(folder, Path):
        paths = [path for depth in ("*", "*/*", "artifacts/*/*") for path in folder.glob(f"{depth}/{NAME}")]
        inside = [path.parent.relative_to(folder).as_posix() for path in paths]
    else:
        inside = [name.rsplit("/", 1)[0] for name in storage.list_folder(folder) if name.endswith(f"/{NAME}")]
    yield folder
    for name in sorted(set(inside)):
        if name.removeprefix("artifacts/").startswith(("benchmark", "student")):
            yield storage.parse(storage.join(folder, name))


def _read(folder: Location) -> dict[str, Any] | None:
    path = storage.join(folder, NAME)
    data = storage.read_bytes(path)
    remedy = "Download or build its folder again."
    sealed = storage.read_bytes(storage.join(folder, manifest.NAME)) is not None
    entry = manifest.read(folder).files.get(NAME) if sealed else None
    if data is None:
        if entry is not None:
            raise InputError(f"{path} is missing, or is no file; the manifest beside it lists it.", remedy)
        return None
    if sealed and (entry is None or entry["sha256"] != hashlib.sha256(data).hexdigest()):
        raise InputError(f"{path} is damaged: it does not match the manifest beside it.", remedy)
    try:
        tree = parse_json(data)
        schema = tree["schema"]
        known = tree["stage"] == "distill" and {"shards", "cache"} <= tree["inputs"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no lineage: {error!r}.", remedy) from error
    if schema != SCHEMA or not known:
        raise InputError(f"{path} has schema {schema}; this cliprd reads schema {SCHEMA} of students.", remedy)
    return with_code(folder, tree)
