"""Where pairs come from: img2dataset's tars, open_clip's CSV, a captioned folder. All give the same raw records.

Tars are read with `tarfile`, not with the `webdataset` library: that one treats a damaged or cut tar as the end of the
data, lets a second part of the same name replace the first, and joins neighbours of equal key. Here each of these must
be found and named. The layout is the same.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from cliprd import storage
from cliprd.data.images import EXTENSIONS
from cliprd.errors import InputError
from cliprd.params import Data

_SUFFIXES = {
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".txt"),
    "folder": (*EXTENSIONS, ".txt"),
}


_SUFFIX = re.compile(r"\.(tar|tar\.gz|tgz|[ct]sv|[ct]sv\.gz|txt)$", re.IGNORECASE)


@dataclass(frozen=True)
class Raw:
    """One record as found; nothing is checked yet.

    Attributes:
        source: where it stands, for people: tar and key, file, or CSV line.
        key: proposed key, fit for WebDataset.
        image: encoded bytes, or None where there is no image.
        captions: bytes as found, one item a caption; None where there is no caption field at all.
        fault: a reason known already from reading (code, detail), such as a broken JSON field.
    """

    source: str
    key: str
    image: bytes | None
    captions: tuple[bytes, ...] | None
    fault: tuple[str, str] | None = None


@dataclass(frozen=True)
class Source:
    """A part of the data that can come, go or change by itself: a tar, a table with its images, or a whole folder.

    Attributes:
        place: the file, or `data.path` for a folder.
        name: its place below what all have in common; unique, and the same wherever the data lie.
        fingerprint: of its content: sha256 of what is here, ETag and size of what is in S3.
        stem: unique, fit for the names of files made from it.
    """

    place: str
    name: str
    fingerprint: str
    stem: str


def inventory(data: Data) -> list[Source]:
    """All sources that `data` names, in their order. Those here are read for it, those in S3 are asked about.

    A table in S3 is identified by itself alone; replacing an image under an unchanged name there is not seen.

    Raises:
        InputError: the source is missing or empty, or a table is damaged. RetryableError: the store failed.
    """
    places = listed(data)
    contents = {"webdataset": _tars_by_themselves, "csv": _identities_of_tables, "folder": _identity_of_folder}[
        data.kind
    ]
    found = contents(places, data)
    names = {place: _name(place, data.path) for place in found}
    stems = {place: safe_key(_SUFFIX.sub("", name)) for place, name in names.items()}
    counts = Counter(stems.values())
    return [
        # `a.tar` beside `a.tar.gz`: the suffix tells them apart
        Source(place, names[place], content, stems[place] if counts[stems[place]] == 1 else safe_key(names[place]))
        for place, content in found.items()
    ]


def records(data: Data, source: Source | None = None) -> Iterator[Raw]:
    """All records of what `data` names, or of one source, in a fixed order, streaming.

    Raises:
        InputError: the source is missing or empty, or a tar or table is damaged (it is named).
    """
    read = {"webdataset": _tars, "csv": _tables, "folder": _folder}[data.kind]
    return read(data, listed(data) if source is None or data.kind == "folder" else [source.place])


def fingerprint(data: Data) -> str:
    """sha256 of what the data hold and where they are; see `inventory`."""
    return combined(inventory(data))


def combined(found: Sequence[Source]) -> str:
    """The fingerprint of all sources together."""
    return hashlib.sha256(
        "".join(f"{part.place}\0{part.fingerprint}\n" for part in found).encode("utf-8", "surrogatepass")
    ).hexdigest()


def safe_key(name: str) -> str:
    """A key without dots, slashes and spaces, which WebDataset gives a meaning; at most 80 characters.

    A name that had to be changed gets a digest of itself at its end, so that different names stay different.
    """
    clean = re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_")
    if clean == name and 0 < len(name) <= 80:
        return name
    return (
        f"{clean[-67:].strip('_') or 'sample'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    )


def listed(data: Data) -> list[str]:
    """The files that `data` names, in their order: tars, tables, or images and captions; see `storage.list_files`."""
    return storage.list_files(data.path, _SUFFIXES[data.kind], recursive=data.kind == "folder")


def _name(place: str, path: str) -> str:
    """`place` below the part of `data.path` that is no pattern."""
    plain = re.split(r"[*?\[{]", path, maxsplit=1)[0]
    if place == path.rstrip("/"):
        return place.rsplit("/", 1)[-1]
    base = plain if plain == path else _folder_of(plain)
    return place.removeprefix(base).lstrip("/") if storage.is_s3(place) else os.path.relpath(place, base or ".")


def _folder_of(place: str) -> str:
    return place[: place.rfind("/") + 1]


def _identities_of_tables(places: Sequence[str], data: Data) -> dict[str, str]:
    """Of what is used of each: its two columns, and the content of the images that are there."""
    digests, images = {}, dict[str, dict[str, None]]()
    for place in places:
        digests[place], images[place] = hashlib.sha256(), {}
        for row in table_rows(place, data):
            digests[place].update(f"{row.name!r} {row.caption!r}\n".encode("utf-8", "surrogatepass"))
            images[place] |= {row.image: None} if row.image else {}
    known = storage.fingerprints((image for named in images.values() for image in named), absent=True)
    for place, named in images.items():
        digests[place].update("".join(f"{known.get(image)}\n" for image in named).encode())
    return {place: content.hexdigest() for place, content in digests.items()}


def _identity_of_folder(places: Sequence[str], data: Data) -> dict[str, str]:
    known = storage.fingerprints(places)
    found = "".join(f"{_name(place, data.path)}\0{content}\n" for place, content in known.items())
    return {data.path: hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()}


def _tars_by_themselves(places: Sequence[str], data: Data) -> dict[str, str]:
    return storage.fingerprints(places)


# --- tars


class _Member(tarfile.TarInfo):
    """A header that is broken or cut ends `tarfile`'s iteration as if the archive ended there; here it is an error."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the two zero blocks: a proper end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from error


def _tars(data: Data, places: Sequence[str]) -> Iterator[Raw]:
    for url in places:
        with storage.open_stream(url) as file:
            try:
                plain = file if url.lower().endswith(".tar") else gzip.GzipFile(fileobj=file)
                with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member) as tar:
                    yield from _grouped(url, tar)
                while plain.read(1 << 20):  # gzip's checksum stands at the very end
                    pass
            except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
                raise InputError(
                    f"{url} is damaged or cut short: {error}.", "Fetch or build this tar again."
                ) from error


def _grouped(url: str, tar: tarfile.TarFile) -> Iterator[Raw]:
    """WebDataset's rule: neighbours with the same name up to the first dot of the base name are one sample."""
    key, parts = None, dict[str, bytes]()
    for entry in tar:
        tar.members.clear()  # type: ignore[attr-defined]  # it remembers every entry: a gigabyte for a million samples
        if not entry.isfile():
            continue
        path = PurePosixPath(entry.name)
        base, _, extension = path.name.partition(".")
        extension = f".{extension.lower()}"
        name = str(path.with_name(base)) if base else path.name
        if key is not None and (name != key or extension in parts):  # a part again: another sample of the same key
            yield _raw(url, key, parts)
            parts = {}
        key = name
        member = tar.extractfile(entry)
        parts[extension] = member.read() if member else b""
    if key is not None:
        yield _raw(url, key, parts)


def _raw(url: str, key: str, parts: dict[str, bytes]) -> Raw:
    image = next((parts[extension] for extension in EXTENSIONS if extension in parts), None)
    captions, fault = None, None
    if ".txt" in parts:
        captions = _lines(parts[".txt"])
    elif ".json" in parts:
        captions, fault = _json_captions(parts[".json"])
    return Raw(f"{url}:{key}", safe_key(key), image, captions, fault)


def _lines(text: bytes) -> tuple[bytes, ...]:
    return tuple(re.split(rb"\r\n|\r|\n", text))


def _json_captions(text: bytes) -> tuple[tuple[bytes, ...] | None, tuple[str, str] | None]:
    """img2dataset's `caption` field: a string, or a list of them."""
    try:
        field = json.loads(text).get("caption")
    except (ValueError, AttributeError, RecursionError) as error:
        return None, ("broken_json", " ".join(str(error).split())[:200])
    values = field if isinstance(field, list) else [field]
    if not all(isinstance(value, str) for value in values):
        return None, None
    return tuple(value.encode("utf-8", "surrogatepass") for value in values), None


# --- CSV


@dataclass(frozen=True)
class _Row:
    source: str
    name: str
    image: str | None
    caption: bytes | None


def _tables(data: Data, places: Sequence[str]) -> Iterator[Raw]:
    """Neighbouring rows of one image (COCO's five captions) are one sample with several captions."""
    for url in places:
        for _, rows in itertools.groupby(table_rows(url, data), key=lambda row: row.image or row.source):
            group = list(rows)
            first = group[0]
            captions = tuple(row.caption for row in group if row.caption is not None)
            image = storage.read_bytes(first.image) if first.image else None
            key = safe_key(first.name or first.source)
            fault = None if image is not None or not first.image else ("missing_image", first.image)
            yield Raw(first.source, key, image, captions or None, fault)


def table_rows(url: str, data: Data) -> Iterator[_Row]:
    """The rows of a table, one after the other; raises InputError where it is damaged or lacks a column."""
    base = url.rsplit("/", 1)[0] if "/" in url else "."
    with storage.open_stream(url) as raw:
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if url.lower().endswith(".gz") else raw  # type: ignore[assignment]
        try:
            # latin-1 maps every byte, so a caption that is no UTF-8 reaches the quarantine instead of ending the table
            text = io.TextIOWrapper(stream, encoding="latin-1", newline="")
            reader = csv.reader(text, delimiter=data.csv_separator)
            header = [name.removeprefix("\xef\xbb\xbf") for name in next(reader, [])]
            columns = []
            for column in (data.csv_image_key, data.csv_caption_key):
                if column not in header:
                    raise InputError(
                        f"{url} has no column '{column}'; it has {', '.join(header) or 'none'}.",
                        "Set data.csv_image_key, data.csv_caption_key and data.csv_separator.",
                    )
                columns.append(header.index(column))
            for row in reader:
                if not row:
                    continue
                cells = [row[i].encode("latin-1") if i < len(row) else None for i in columns]
                name = (cells[0] or b"").decode("utf-8", "replace").strip()
                place = name if name.startswith(("/", "s3://")) else storage.join(base, name)
                yield _Row(f"{url}:{reader.line_num}", name, place if name else None, cells[1])
        except (csv.Error, OSError, EOFError, zlib.error) as error:
            raise InputError(f"{url} is damaged: {error}.", "Build this table again.") from error


# --- captioned folder


def _folder(data: Data, places: Sequence[str]) -> Iterator[Raw]:
    """Images with a .txt of the same name, one caption a line; a .txt without an image is reported, not passed over."""
    images = {place.rsplit(".", 1)[0] for place in places if not place.lower().endswith(".txt")}
    for place in places:
        stem = place.rsplit(".", 1)[0]
        key = safe_key(stem.removeprefix(data.path.rstrip("/")).lstrip("/"))
        if not place.lower().endswith(".txt"):
            text = storage.read_bytes(f"{stem}.txt")
            yield Raw(place, key, storage.read_bytes(place), _lines(text) if text is not None else None)
        elif stem not in images:
            yield Raw(place, key, None, (b"",))
