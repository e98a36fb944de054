"""Whole stage folders: bring one here, or let a small one stand for one in S3."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cliprd import files, manifest
from cliprd.errors import InputError
from cliprd.reading import read_json
from cliprd.storage import s3
from cliprd.storage.paths import Location, below, is_s3, join, label, parse, scratch
from cliprd.storage.streams import read_bytes
from cliprd.storage.transfer import download, entries, head, upload

POINTER = "location.json"


def write_pointer(folder: Path, url: str) -> None:
    """Let `folder` stand for the finished folder at `url`: its manifest, and `location.json` with the address.

    Raises:
        InputError: there is no finished folder. RetryableError: the network or the store failed.
    """
    data = read_bytes(join(url, manifest.NAME))
    if data is None:
        raise InputError(f"{url} has no {manifest.NAME}, so it was never finished.", "Run the stage that makes it.")
    files.sweep_below(folder)
    manifest.write_json(folder / POINTER, {"url": url})
    with manifest.atomic_write(folder / manifest.NAME) as file:  # last, as everywhere
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
        known = (place / manifest.NAME).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place / POINTER} is damaged: {error!r}.", remedy) from error
    if not is_s3(url):
        raise InputError(f"{place / POINTER} points to {url!r}, which is not in S3.", remedy)
    there = read_bytes(join(url, manifest.NAME))
    if there is None:
        raise InputError(f"{url}, to which {place} points, is gone or unfinished: it has no {manifest.NAME}.", remedy)
    if there != known:
        raise InputError(f"{url} was made anew since {place} was written to point to it.", remedy)
    return parse(url)


def fetch_folder(location: Location) -> Path:
    """A finished folder on this machine: a local one as it is, one in S3 as a copy whose every file was checked.

    The copy lies under `scratch()` and is used again while it is whole. For folders that are small enough to be copied.

    Raises:
        InputError: unfinished, or a file is missing or damaged (it is named).
        RetryableError: the network or the store failed.
    """
    place = resolve(location)
    if isinstance(place, Path):
        return place
    found = manifest.read(place)
    data = manifest.canonical(found.body())
    folder = scratch("folders", label(place + data)) / place.rsplit("/", 1)[1]
    for name, entry in found.files.items():
        path = below(folder, name)
        if not (path.is_file() and manifest.sha256_file(path) == entry["sha256"]):
            download(join(place, name), path, size=entry["size"], sha256=entry["sha256"])
    for name in entries(join(place, manifest.VOLATILE_DIR)):  # no manifest says what these should be
        download(join(place, f"{manifest.VOLATILE_DIR}/{name}"), below(folder / manifest.VOLATILE_DIR, name))
    download(join(place, manifest.NAME), folder / manifest.NAME)
    return folder


def fetch_file(location: str) -> Path:
    """A single file on this machine: a local one as it is, there or not; of one in S3 a copy of its present version.

    Raises:
        Missing: it is not in S3. InputError: forbidden. RetryableError: the network or the store failed.
    """
    if not is_s3(location):
        return Path(location)
    there = s3.retrying(lambda: head(location))
    path = scratch("objects", label(location + there.etag)) / location.rsplit("/", 1)[1]
    if not (path.is_file() and path.stat().st_size == there.size):
        download(location, path, size=there.size)
    return path


def put_folder(folder: Path, location: Location) -> None:
    """Copy a finished folder to where none is yet, here or in S3; its manifest comes last.

    Raises:
        InputError: it was never finished. RetryableError: the network or the store failed.
    """
    found, place = manifest.read(folder), parse(location)
    there = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [*found.files, *(name for name in there if name.startswith(f"{manifest.VOLATILE_DIR}/")), manifest.NAME]
    for name in names:
        if is_s3(str(place)):
            upload(folder / name, join(place, name))
        else:
            with manifest.atomic_write(Path(place, name)) as file, (folder / name).open("rb") as source:
                shutil.copyfileobj(source, file)


def await_finished(url: str, *, interval: float = 10, still: float = 1800) -> manifest.Manifest | None:
    """The manifest of a folder that another process is writing, once it is finished; None where nothing moves there.

    Args:
        interval: seconds between two looks.
        still: seconds without any change after which the writer is believed dead.

    Raises:
        RetryableError: the network or the store failed.
    """
    known, since = None, time.monotonic()
    while True:
        there = entries(url)
        if manifest.NAME in there:
            return manifest.read(url)
        if there != known:
            known, since = there, time.monotonic()
        elif time.monotonic() - since > still:
            return None
        time.sleep(interval)


def fetch_tree(location: Location, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """A folder without a manifest on this machine, as it is now; of one in S3 all folders, but only the files `wanted`.

    Raises:
        InputError: there is nothing. RetryableError: the network or the store failed, or it was changed meanwhile.
    """
    place = parse(location)
    if isinstance(place, Path):
        return place
    found = entries(place)
    if not found:
        raise InputError(f"{place} does not exist.", "Check the address.")
    version = hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()
    folder = scratch("trees", label(place + version)) / place.rsplit("/", 1)[1]
    for name, entry in found.items():
        path = below(folder, name)
        if not wanted(name):
            path.parent.mkdir(parents=True, exist_ok=True)  # what else there is, for messages
        elif not (path.is_file() and path.stat().st_size == entry.size):
            download(join(place, name), path, version=entry)
    return folder
