"""Sources of pairs: img2dataset's tars, open_clip's CSV, a folder with captions. All give the same raw records."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cliprd import storage
from cliprd.data import archives, tables
from cliprd.data.endings import PICTURES
from cliprd.data.raw import Part, Raw, assembled, is_companion, safe_key, shown
from cliprd.data.unpacking import OTHER_OUTPUTS
from cliprd.errors import InputError
from cliprd.names import visible
from cliprd.params import Data

_SUFFIXES = {
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst"),
    "csv": (
        *(".csv", ".tsv", ".txt"),
        *(f"{table}.{packed}" for table in (".csv", ".tsv", ".txt") for packed in ("gz", "xz", "bz2", "zst", "zip")),
    ),
    "folder": (*PICTURES, ".txt"),
}
_SUFFIX = re.compile(
    r"\.(tar|tar\.(gz|xz|bz2|zst)|tgz|txz|tbz2|tzst|([ct]sv|txt)(\.(gz|xz|bz2|zst|zip))?)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Source:
    """A part of the data that is added, removed or changed as a unit: a tar, a table with its images, or a folder.

    Attributes:
        place: path or URL of the file, or `data.path` for a folder.
        name: path below the common prefix; unique, and independent of where the data are stored.
        fingerprint: of its content: sha256 of local files, ETag and size of objects in S3.
        stem: unique and valid as a prefix of file names.
    """

    place: str
    name: str
    fingerprint: str
    stem: str


def inventory(data: Data) -> list[Source]:
    """All sources that `data` names, in order. Local files are hashed, objects in S3 are listed.

    Raises:
        InputError: the source is missing or empty, or a table is damaged. RetryableError: the store failed.
    """
    paths = listed(data, report=True)
    fingerprint_all = {"webdataset": _tars_by_themselves, "csv": _identities_of_tables, "folder": _identity_of_folder}[
        data.kind
    ]
    fingerprints = fingerprint_all(paths, data)
    names = {path: _name(path, data.path) for path in fingerprints}
    stems = {path: safe_key(_SUFFIX.sub("", name)) for path, name in names.items()}
    counts = Counter(stems.values())
    return [
        # `a.tar` beside `a.tar.gz` differ in the suffix
        Source(path, names[path], content, stems[path] if counts[stems[path]] == 1 else safe_key(names[path]))
        for path, content in fingerprints.items()
    ]


def records(data: Data, source: Source | None = None) -> Iterator[Raw]:
    """All records of `data`, or of one source, in a fixed order, streaming.

    Raises:
        InputError: the source is missing or empty, or a tar or table is damaged (the message names it).
    """
    paths = listed(data) if source is None or data.kind == "folder" else [source.place]
    if data.kind == "folder":
        return _folder(data, paths)
    read = archives.samples if data.kind == "webdataset" else functools.partial(tables.samples, data=data)
    return itertools.chain.from_iterable(map(read, paths))


def fingerprint(data: Data) -> str:
    """sha256 of the sources' paths and contents; see `inventory`."""
    return combined(inventory(data))


def combined(parts: Sequence[Source]) -> str:
    """The fingerprint of all sources together."""
    return hashlib.sha256(
        "".join(f"{part.place}\0{part.fingerprint}\n" for part in parts).encode("utf-8", "surrogatepass")
    ).hexdigest()


def listed(data: Data, *, report: bool = False) -> list[str]:
    """The files that `data` names, in order: tars, tables, or images and captions; see `storage.list_files`.

    Args:
        report: print how many were skipped.
    """
    try:
        paths = storage.list_files(data.path, _SUFFIXES[data.kind], recursive=data.kind == "folder")
    except storage.NoFiles as error:
        remedy = next((OTHER_OUTPUTS[ending] for ending in error.endings if ending in OTHER_OUTPUTS), error.remedy)
        raise InputError(error.problem, remedy) from error
    ending = next((ending for ending in OTHER_OUTPUTS if data.path.lower().endswith(ending)), None)
    if ending:
        raise InputError(f"{data.path} is no source of data.kind {data.kind}.", OTHER_OUTPUTS[ending])
    kept = [path for path in paths if not is_companion(_name(path, data.path))]
    if report and len(kept) < len(paths):
        left_out = len(paths) - len(kept)
        print(f"cliprd: {data.path}: {left_out} metadata files of macOS or Windows skipped (._*)", file=sys.stderr)
    if not kept:
        raise InputError(
            f"{data.path} holds only metadata files of macOS or Windows (._*).",
            "Set data.path to where the data is.",
        )
    repeated = [path for path, count in Counter(kept).items() if count > 1]
    if repeated:
        raise InputError(f"data.path names {visible(repeated[0])} twice.", "Name each file once.")
    return kept


def _name(file: str, path: str) -> str:
    """`file` relative to the part of `data.path` before any pattern."""
    plain = storage.literal_part(path)
    if file.rstrip("/") == path.rstrip("/"):
        return file.rstrip("/").rsplit("/", 1)[-1]
    base = plain if plain == path else _folder_of(plain)
    return file.removeprefix(base).lstrip("/") if storage.is_s3(file) else os.path.relpath(file, base or ".")


def _folder_of(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _identities_of_tables(paths: Sequence[str], data: Data) -> dict[str, str]:
    """Table → digest of its two columns and of the contents of the images that exist."""
    digests, images = {}, dict[str, dict[str, None]]()
    for path in paths:
        digests[path], images[path] = hashlib.sha256(), {}
        for row in tables.rows(path, data):
            digests[path].update(f"{row.name!r} {row.captions!r}\n".encode("utf-8", "surrogatepass"))
            images[path] |= {row.image: None} if row.image else {}
    known = storage.fingerprints((image for named in images.values() for image in named), absent=True)
    for path, named in images.items():
        digests[path].update("".join(f"{known.get(image)}\n" for image in named).encode())
    return {path: content.hexdigest() for path, content in digests.items()}


def _identity_of_folder(paths: Sequence[str], data: Data) -> dict[str, str]:
    known = storage.fingerprints(paths)
    listing = "".join(f"{_name(path, data.path)}\0{content}\n" for path, content in known.items())
    return {data.path: hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()}


def _tars_by_themselves(paths: Sequence[str], data: Data) -> dict[str, str]:
    return storage.fingerprints(paths)


# --- captioned folder


def _folder(data: Data, paths: Sequence[str]) -> Iterator[Raw]:
    """Images with a .txt of the same name, one caption a line. A .txt without an image gives a record without one."""
    stems: dict[str, list[str]] = {}
    for file in paths:
        stems.setdefault(file.rsplit(".", 1)[0], []).append(file)
    for file in paths:
        stem = file.rsplit(".", 1)[0]
        group = sorted(stems[stem], key=_is_text)  # the image first: it names the record
        if file != group[0]:
            continue
        parts = {f".{path.rsplit('.', 1)[1].lower()}": _file(path) for path in group}
        raw = assembled(file, stem.removeprefix(data.path.rstrip("/")).lstrip("/"), parts)
        if raw.captions is None and not raw.fault:
            detail = f"{shown(raw.found)}; captions are read from {visible(stem.rsplit('/', 1)[-1])}.txt beside it"
            raw = replace(raw, fault=("missing_caption", detail))
        yield raw


def _file(path: str) -> Part:
    content = storage.read_bytes(path)
    if content is None:
        raise InputError(f"{path} was removed while the command ran.", "Run the same command again.")
    return Part(path.rsplit("/", 1)[-1], content)


def _is_text(path: str) -> bool:
    return path.lower().endswith(".txt")
