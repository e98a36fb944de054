"""Where pairs come from: img2dataset's tars, open_clip's CSV, a captioned folder. All give the same raw records."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cliprd import storage
from cliprd.data.images import EXTENSIONS
from cliprd.errors import InputError
from cliprd.params import Data


@dataclass(frozen=True)
class Raw:
    """One record as found; nothing is checked yet, and either part may be missing.

    Attributes:
        source: where it stands, for people: tar and key, file, or CSV line.
        key: proposed key.
        image: encoded bytes, or None where there is no image.
        text: caption bytes as found, or None.
    """

    source: str
    key: str
    image: bytes | None
    text: bytes | None


def records(data: Data) -> Iterator[Raw]:
    """All records of the source that `data` names, in a fixed order, streaming.

    Raises:
        InputError: the source is missing, empty, or a tar or table is damaged.
    """
    return {"webdataset": _tars, "csv": _table, "folder": _folder}[data.kind](data)


def inventory(data: Data) -> list[str]:
    """The files that `records` reads first (tars, the table, images): their names and sizes identify the source."""
    suffixes = {"webdataset": (".tar", ".tar.gz", ".tgz"), "csv": (".csv", ".tsv", ".txt"), "folder": EXTENSIONS}
    return storage.list_files(data.path, suffixes[data.kind], recursive=data.kind == "folder")


def safe_key(name: str) -> str:
    """A key without dots, slashes and spaces, which WebDataset gives a meaning."""
    return re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_") or "sample"


def _tars(data: Data) -> Iterator[Raw]:
    for url in inventory(data):
        with storage.open_stream(url) as file:
            try:
                with tarfile.open(fileobj=file, mode="r|*") as tar:
                    yield from _grouped(url, tar)
            except (tarfile.TarError, OSError, EOFError) as error:
                raise InputError(f"{url} is damaged: {error}.", "Fetch or build this tar again.") from error


def _grouped(url: str, tar: tarfile.TarFile) -> Iterator[Raw]:
    """WebDataset's rule: neighbours with the same name up to the first dot of the base name are one sample."""
    key, parts = None, dict[str, bytes]()
    for entry in tar:
        if not entry.isfile():
            continue
        path = PurePosixPath(entry.name)
        base, _, extension = path.name.partition(".")
        name = str(path.with_name(base)) if base else path.name
        if key is not None and name != key:
            yield _raw(url, key, parts)
            parts = {}
        key = name
        member = tar.extractfile(entry)
        parts[f".{extension.lower()}"] = member.read() if member else b""
    if key is not None:
        yield _raw(url, key, parts)


def _raw(url: str, key: str, parts: dict[str, bytes]) -> Raw:
    image = next((parts[extension] for extension in EXTENSIONS if extension in parts), None)
    text = parts.get(".txt")
    if text is None and ".json" in parts:
        try:
            caption = json.loads(parts[".json"]).get("caption")
            text = caption.encode() if isinstance(caption, str) else None
        except (ValueError, AttributeError):
            text = None
    return Raw(f"{url}:{key}", safe_key(key), image, text)


def _table(data: Data) -> Iterator[Raw]:
    url = data.path
    base = url.rsplit("/", 1)[0] if "/" in url else "."
    with storage.open_stream(url) as file:
        # latin-1 maps every byte, so a caption that is no UTF-8 reaches the quarantine instead of ending the table
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="latin-1", newline=""), delimiter=data.csv_separator)
        for column in (data.csv_image_key, data.csv_caption_key):
            if column not in (rows.fieldnames or ()):
                raise InputError(
                    f"{url} has no column '{column}'; it has {', '.join(rows.fieldnames or ()) or 'none'}.",
                    "Set data.csv_image_key, data.csv_caption_key and data.csv_separator.",
                )
        for number, row in enumerate(rows, start=2):
            name, caption = row[data.csv_image_key], row[data.csv_caption_key]
            if not name:
                yield Raw(f"{url}:{number}", f"line_{number}", None, b"")
                continue
            path = name.encode("latin-1").decode("utf-8", "replace")
            place = path if path.startswith(("/", "s3://")) else storage.join(base, path)
            text = caption.encode("latin-1") if caption is not None else None
            yield Raw(f"{url}:{number}", safe_key(PurePosixPath(path).with_suffix("").as_posix()), _read(place), text)


def _folder(data: Data) -> Iterator[Raw]:
    root = data.path.rstrip("/")
    for place in inventory(data):
        stem = place.rsplit(".", 1)[0]
        yield Raw(place, safe_key(stem.removeprefix(root)), _read(place), _read(f"{stem}.txt"))


def _read(place: str) -> bytes | None:
    if not storage.is_s3(place):
        return Path(place).read_bytes() if Path(place).is_file() else None
    try:
        with storage.open_stream(place) as file:
            return file.read()
    except InputError:
        return None
