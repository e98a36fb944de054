"""Counts pairs without decoding a picture: in finished shards, or in the source that `prepare` packs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.data import archives, sources, tables
from cliprd.data.endings import EXTENSIONS
from cliprd.errors import CliprdError, InputError
from cliprd.params import Data
from cliprd.reading import parse_json
from cliprd.storage import Location

MOST_READ = 1 << 30  # bytes; counting the pairs of tars in S3 downloads them


class Pairs(NamedTuple):
    """Number of pairs, or None if unknown; and a text that says where it comes from, or why it is unknown."""

    number: int | None
    where: str


def count(data: Data, shards: Location) -> Pairs:
    """The pairs in `shards` if these are complete and were packed with `data`, else those in the source.

    Raises:
        RetryableError: the network or the store failed.
    """
    return of_shards(shards, data) or of_source(data)


def of_shards(folder: Location, data: Data) -> Pairs | None:
    """The pairs that `prepare` packed with the parameters `data`, or None if it did not."""
    try:
        packed = manifest.read(resolve(folder), stage="prepare")
    except InputError:
        return None
    if dict(packed.params) != data.model_dump(mode="json"):
        return None
    return Pairs(int(packed.facts["samples"]), f"packed in {folder}")


def of_source(data: Data) -> Pairs:
    """The pairs that `data` names; unknown if it is missing, damaged or too large to be read for a count.

    Raises:
        RetryableError: the network or the store failed.
    """
    try:
        return Pairs(*_count_source(data))
    except InputError as error:
        return Pairs(None, error.problem)


def _count_source(data: Data) -> tuple[int | None, str]:
    paths = sources.listed(data)
    origin = f"found in {data.path}; some may be set aside by `prepare`"
    if data.kind == "csv":
        return sum(_of_table(path, data) for path in paths), origin
    if data.kind == "folder":
        stems = {path.rsplit(".", 1)[0] for path in paths if path.lower().endswith(".txt")}
        return sum(path.lower().endswith(EXTENSIONS) and path.rsplit(".", 1)[0] in stems for path in paths), origin
    statistics = [_downloaded(path) for path in paths]
    if None not in statistics:
        return sum(filter(None, statistics)), f"downloaded into {data.path}, as img2dataset's _stats.json say"
    local = [path for path in paths if not storage.is_s3(path)]
    if len(local) < len(paths) and sum(_sizes(paths).values()) > MOST_READ:
        return None, f"{data.path} is in S3 and too large to be downloaded for a count"
    return sum(_is_pair(parts) for path in paths for parts in archives.names(path)), origin


def _of_table(path: str, data: Data) -> int:
    """Consecutive rows of one image are one pair."""
    rows = (row.image for row in tables.rows(path, data) if row.image and row.captions)
    return sum(1 for _ in itertools.groupby(rows))


def _downloaded(path: str) -> int | None:
    """The number that img2dataset wrote beside a tar; None if there is none."""
    try:
        stats = storage.read_bytes(f"{path.rsplit('.tar', 1)[0]}_stats.json")
        number = parse_json(stats or b"{}").get("successes")
    except (ValueError, AttributeError, CliprdError):
        return None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _sizes(paths: list[str]) -> dict[str, int]:
    folders = {path[: path.rfind("/") + 1] for path in paths if storage.is_s3(path)}
    sizes = {f"{folder}{name}": size for folder in folders for name, size in storage.list_folder(folder).items()}
    return {path: sizes[path] for path in paths if path in sizes}


def _is_pair(parts: Mapping[str, bool]) -> bool:
    """Whether a sample has an image and a caption, judged by its file names."""
    endings = {ending for ending, is_file in parts.items() if is_file}
    return not endings.isdisjoint(EXTENSIONS) and not endings.isdisjoint((".txt", ".json"))
