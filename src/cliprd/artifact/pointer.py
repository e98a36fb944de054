"""Where a finished folder lies: here, in S3, or behind a small file that points there."""

from __future__ import annotations

from pathlib import Path

from cliprd import files
from cliprd.errors import InputError
from cliprd.reading import read_json
from cliprd.storage import Location, is_s3, join, parse, read_bytes

NAME = "manifest.json"
POINTER = "location.json"


def write_pointer(folder: Path, url: str) -> None:
    """Let `folder` stand for the finished folder at `url`: its manifest, and `location.json` with the address.

    Raises:
        InputError: there is no finished folder. RetryableError: the network or the store failed.
    """
    data = read_bytes(join(url, NAME))
    if data is None:
        raise InputError(f"{url} has no {NAME}, so it was never finished.", "Run the stage that makes it.")
    files.sweep_below(folder)
    files.write_json(folder / POINTER, {"url": url})
    with files.atomic_write(folder / NAME) as file:  # last, as everywhere
        file.write(data)


def resolve(location: Location) -> Location:
    """Where a folder really lies: a pointer is followed, anything else comes back as it is (see `parse`).

    Raises:
        InputError: the pointer is damaged, or what it points to is gone or has been made anew since.
        RetryableError: the network or the store failed.
    """
    place = parse(location)
    if not isinstance(place, Path) or not (place / POINTER).is_file():
        return place
    remedy = "Run the steps that make it again, up to the one that reads it."
    try:
        url = read_json(place / POINTER)["url"]
        known = (place / NAME).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place / POINTER} is damaged: {error!r}.", remedy) from error
    if not is_s3(url):
        raise InputError(f"{place / POINTER} points to {url!r}, which is not in S3.", remedy)
    there = read_bytes(join(url, NAME))
    if there is None:
        raise InputError(f"{url}, to which {place} points, is gone or unfinished: it has no {NAME}.", remedy)
    if there != known:
        raise InputError(f"{url} was made anew since {place} was written to point to it.", remedy)
    return parse(url)
