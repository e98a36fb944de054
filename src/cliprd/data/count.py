"""Counts pairs without decoding a picture: in finished shards, or in the source that `prepare` packs.

Tars in S3 are not downloaded for it: their indexes are read or, without any, the beginnings of a few for an estimate.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.data import archives, sources, tables
from cliprd.data.endings import EXTENSIONS
from cliprd.errors import InputError
from cliprd.parallel import ordered_map
from cliprd.params import Data
from cliprd.reading import parse_json
from cliprd.storage import Location

MOST_READ = 16 << 20  # bytes of tars in S3 that are read for a count
SAMPLED, BEGINNING = 8, 2 << 20  # of more: tars whose beginning is read, and bytes of each
STATS, SIZES = "_stats.json", "sizes.json"  # img2dataset's, beside each tar; WebDataset's, of all tars in the folder


class PairCount(NamedTuple):
    """Number of pairs, or None if unknown; and a text that says where it comes from, or why it is unknown."""

    number: int | None
    where: str


class Estimate(PairCount):
    """About as many pairs."""


def count(data: Data, shards: Location) -> PairCount:
    """The pairs in `shards` if these are complete and were packed with `data`, else those in the source.

    Raises:
        RetryableError: the network or the store failed.
    """
    return of_shards(shards, data) or of_source(data)


def of_shards(folder: Location, data: Data) -> PairCount | None:
    """The pairs that `prepare` packed with the parameters `data`, or None if it did not."""
    try:
        packed = manifest.read(resolve(folder), stage="prepare")
    except InputError:
        return None
    if dict(packed.params) != data.model_dump(mode="json"):
        return None
    return PairCount(int(packed.facts["samples"]), f"packed in {folder}")


def of_source(data: Data) -> PairCount:
    """The pairs that `data` names, as an estimate where they are many in S3; unknown if it is missing or damaged.

    Raises:
        RetryableError: the network or the store failed.
    """
    try:
        return _count_source(data)
    except InputError as error:
        return PairCount(None, error.problem)


def _count_source(data: Data) -> PairCount:
    paths = sources.listed(data)
    origin = _origin(data)
    if data.kind == "csv":
        return PairCount(sum(_of_table(path, data) for path in paths), origin)
    if data.kind == "folder":
        stems = {path.rsplit(".", 1)[0] for path in paths if path.lower().endswith(".txt")}
        images = (path for path in paths if path.lower().endswith(EXTENSIONS))
        return PairCount(sum(path.rsplit(".", 1)[0] in stems for path in images), origin)
    if known := _of_own_shards(data, paths) or _of_indexes(data, paths):
        return known
    sizes = _sizes(paths)
    if sum(sizes.values()) > MOST_READ:
        return _estimate(data, sizes)
    return PairCount(sum(_is_pair(parts) for path in paths for parts in archives.names(path)), origin)


def _origin(data: Data) -> str:
    return f"found in {data.path}; some may be set aside by `prepare`"


def _of_table(path: str, data: Data) -> int:
    """Consecutive rows of one image are one pair."""
    rows = (row.image for row in tables.rows(path, data) if row.image and row.captions)
    return sum(1 for _ in itertools.groupby(rows))


def _of_own_shards(data: Data, paths: list[str]) -> PairCount | None:
    """Of a folder that `prepare` has written, with all its tars and no other."""
    if storage.literal_part(data.path) != data.path or paths == [data.path]:
        return None
    try:
        packed = manifest.read(storage.parse(data.path), stage="prepare")
    except InputError:
        return None
    if packed.facts["shards"] != len(paths):
        return None
    return PairCount(int(packed.facts["samples"]), f"in {data.path}, as the manifest of `prepare` there says")


def _of_indexes(data: Data, paths: list[str]) -> PairCount | None:
    """As img2dataset counted for each tar, or as an index of all tars says; None if there is none, or not of all."""
    listings = {folder: set(_listing(folder)) for folder in map(_folder, paths)}
    if all(_stats(path).removeprefix(_folder(path)) in listings[_folder(path)] for path in paths):
        numbers = list(ordered_map(_successes, paths))
        if None not in numbers:
            return PairCount(sum(filter(None, numbers)), f"downloaded into {data.path}, as img2dataset's {STATS} say")
    tables = {folder: _index(f"{folder}{SIZES}") for folder, names in listings.items() if SIZES in names}
    numbers = [_whole(tables.get(_folder(path), {}).get(path.removeprefix(_folder(path)))) for path in paths]
    return None if None in numbers else PairCount(sum(filter(None, numbers)), f"in {data.path}, as its {SIZES} says")


def _estimate(data: Data, sizes: Mapping[str, int]) -> PairCount:
    """From the bytes that a pair takes at the beginning of some tars, and the bytes of all."""
    paths = list(sizes)
    step = max(1, len(paths) // SAMPLED)
    sampled = paths[::step][:SAMPLED]
    beginnings = list(ordered_map(lambda path: _beginning(path, sizes[path]), sampled, workers=SAMPLED))
    found, read = (sum(column) for column in zip(*beginnings, strict=True))
    if not all(pairs for pairs, _ in beginnings):
        why = "one of its tars has no pair at the beginning"
        return PairCount(None, f"{data.path} is in S3 without an index and is not downloaded for a count; {why}")
    if read == sum(sizes.values()):
        return PairCount(found, _origin(data))
    number = round(sum(sizes.values()) * found / read)
    where = f"estimated from {found:,} at the beginning of {len(sampled)} of the {len(paths):,} tar(s) in {data.path}"
    return Estimate(round(number, 3 - len(str(number))), where)


def _beginning(path: str, size: int) -> tuple[int, int]:
    """Pairs at the beginning of a tar, and the bytes that they take."""
    found = 0
    for start, parts in archives.places(path):
        if found and start >= BEGINNING:
            return found, start
        found += _is_pair(parts)
    return found, size


def _folder(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _listing(folder: str) -> Iterable[str]:
    return storage.list_folder(folder) if storage.is_s3(folder) else os.listdir(folder or ".")


def _stats(path: str) -> str:
    return f"{path.rsplit('.tar', 1)[0]}{STATS}"


def _successes(path: str) -> int | None:
    """The number that img2dataset wrote beside a tar; None if it is damaged."""
    return _whole(_index(_stats(path)).get("successes"))


def _index(path: str) -> Mapping[str, Any]:
    """A JSON file's mapping; empty if it is damaged."""
    try:
        tree = parse_json(storage.read_bytes(path) or b"{}")
    except (ValueError, InputError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _whole(number: Any) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _sizes(paths: list[str]) -> dict[str, int]:
    """Tar in S3 → its bytes."""
    folders = {_folder(path) for path in paths if storage.is_s3(path)}
    sizes = {f"{folder}{name}": size for folder in folders for name, size in storage.list_folder(folder).items()}
    return {path: sizes[path] for path in paths if path in sizes}


def _is_pair(parts: Mapping[str, bool]) -> bool:
    """Whether a sample has an image and a caption, judged by its file names."""
    endings = {ending for ending, is_file in parts.items() if is_file}
    return not endings.isdisjoint(EXTENSIONS) and not endings.isdisjoint((".txt", ".json"))
