"""How many pairs there are, without reading a picture: of finished shards, or of the source that `prepare` packs."""

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

MOST_READ = 1 << 30  # bytes of tars in S3, which have to be read through


class Pairs(NamedTuple):
    """A number of pairs, None where it cannot be known; and where it is from, or why it is not known, for people."""

    number: int | None
    where: str


def count(data: Data, shards: Location) -> Pairs:
    """The pairs in `shards` if these are finished and made with `data`, else those in the source.

    Raises:
        RetryableError: the network or the store failed.
    """
    return of_shards(shards, data) or of_source(data)


def of_shards(folder: Location, data: Data) -> Pairs | None:
    """The pairs that `prepare` has packed with the parameters `data`; None where it has not."""
    try:
        found = manifest.read(resolve(folder), stage="prepare")
    except InputError:
        return None
    if dict(found.params) != data.model_dump(mode="json"):
        return None
    return Pairs(int(found.facts["samples"]), f"packed in {folder}")


def of_source(data: Data) -> Pairs:
    """The pairs that `data` names; not known where it is missing or damaged, or would have to be read for hours.

    Raises:
        RetryableError: the network or the store failed.
    """
    try:
        return Pairs(*_found(data))
    except InputError as error:
        return Pairs(None, error.problem)


def _found(data: Data) -> tuple[int | None, str]:
    places = sources.listed(data)
    found = f"found in {data.path}; some may be set aside by `prepare`"
    if data.kind == "csv":
        return sum(_of_table(place, data) for place in places), found
    if data.kind == "folder":
        stems = {place.rsplit(".", 1)[0] for place in places if place.lower().endswith(".txt")}
        return sum(place.lower().endswith(EXTENSIONS) and place.rsplit(".", 1)[0] in stems for place in places), found
    statistics = [_downloaded(place) for place in places]
    if None not in statistics:
        return sum(filter(None, statistics)), f"downloaded into {data.path}, as img2dataset's _stats.json say"
    here = [place for place in places if not storage.is_s3(place)]
    if len(here) < len(places) and sum(_sizes(places).values()) > MOST_READ:
        return None, f"{data.path} is large, and in S3 it would have to be read through"
    return sum(_is_pair(parts) for place in places for parts in archives.names(place)), found


def _of_table(place: str, data: Data) -> int:
    """Neighbouring rows of one image are one pair."""
    rows = (row.image for row in tables.rows(place, data) if row.image and row.captions)
    return sum(1 for _ in itertools.groupby(rows))


def _downloaded(place: str) -> int | None:
    """What img2dataset has noted beside a tar of its own."""
    try:
        noted = storage.read_bytes(f"{place.rsplit('.tar', 1)[0]}_stats.json")
        number = parse_json(noted or b"{}").get("successes")
    except (ValueError, AttributeError, CliprdError):
        return None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _sizes(places: list[str]) -> dict[str, int]:
    folders = {place[: place.rfind("/") + 1] for place in places if storage.is_s3(place)}
    listed = {f"{folder}{name}": size for folder in folders for name, size in storage.list_folder(folder).items()}
    return {place: listed[place] for place in places if place in listed}


def _is_pair(parts: Mapping[str, bool]) -> bool:
    """Whether the files of a sample hold an image and a caption, by their names."""
    there = {ending for ending, is_file in parts.items() if is_file}
    return not there.isdisjoint(EXTENSIONS) and not there.isdisjoint((".txt", ".json"))
