"""Finished folders as a whole: fetched, copied, and awaited."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.storage import Location, download, is_s3, join, parse, scratch, upload
from cliprd.storage.paths import below, label
from cliprd.storage.transfer import entries


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
    data = files.canonical(found.body())
    folder = scratch("folders", label(place + data)) / place.rsplit("/", 1)[1]
    for name, entry in found.files.items():
        path = below(folder, name)
        if not (path.is_file() and storage.sha256(path) == entry["sha256"]):
            download(join(place, name), path, size=entry["size"], sha256=entry["sha256"])
    for name in entries(join(place, manifest.VOLATILE_DIR)):  # no manifest says what these should be
        download(join(place, f"{manifest.VOLATILE_DIR}/{name}"), below(folder / manifest.VOLATILE_DIR, name))
    download(join(place, manifest.NAME), folder / manifest.NAME)
    return folder


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
            with files.atomic_write(Path(place, name)) as file, (folder / name).open("rb") as source:
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
