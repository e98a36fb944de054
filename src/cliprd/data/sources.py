"""Where pairs come from: img2dataset's tars, open_clip's CSV, a captioned folder. All give the same raw records."""

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

    Raises:
        InputError: the source is missing or empty, or a table is damaged. RetryableError: the store failed.
    """
    places = listed(data, report=True)
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
    places = listed(data) if source is None or data.kind == "folder" else [source.place]
    if data.kind == "folder":
        return _folder(data, places)
    read = archives.samples if data.kind == "webdataset" else functools.partial(tables.samples, data=data)
    return itertools.chain.from_iterable(map(read, places))


def fingerprint(data: Data) -> str:
    """sha256 of what the data hold and where they are; see `inventory`."""
    return combined(inventory(data))


def combined(found: Sequence[Source]) -> str:
    """The fingerprint of all sources together."""
    return hashlib.sha256(
        "".join(f"{part.place}\0{part.fingerprint}\n" for part in found).encode("utf-8", "surrogatepass")
    ).hexdigest()


def listed(data: Data, *, report: bool = False) -> list[str]:
    """The files that `data` names, in their order: tars, tables, or images and captions; see `storage.list_files`.

    Args:
        report: print how many were skipped.
    """
    try:
        places = storage.list_files(data.path, _SUFFIXES[data.kind], recursive=data.kind == "folder")
    except storage.NoFiles as error:
        remedy = next((OTHER_OUTPUTS[ending] for ending in error.endings if ending in OTHER_OUTPUTS), error.remedy)
        raise InputError(error.problem, remedy) from error
    ending = next((ending for ending in OTHER_OUTPUTS if data.path.lower().endswith(ending)), None)
    if ending:
        raise InputError(f"{data.path} is no source of data.kind {data.kind}.", OTHER_OUTPUTS[ending])
    kept = [place for place in places if not is_companion(_name(place, data.path))]
    if report and len(kept) < len(places):
        left_out = len(places) - len(kept)
        print(f"cliprd: {data.path}: {left_out} files of macOS or Windows skipped (._*)", file=sys.stderr)
    if not kept:
        raise InputError(
            f"{data.path} holds nothing but files that macOS or Windows put beside others (._*).",
            "Set data.path to where the data is.",
        )
    twice = [place for place, count in Counter(kept).items() if count > 1]
    if twice:
        raise InputError(f"data.path names {visible(twice[0])} twice.", "Name each file once.")
    return kept


def _name(place: str, path: str) -> str:
    """`place` below the part of `data.path` that is no pattern."""
    plain = storage.literal_part(path)
    if place.rstrip("/") == path.rstrip("/"):
        return place.rstrip("/").rsplit("/", 1)[-1]
    base = plain if plain == path else _folder_of(plain)
    return place.removeprefix(base).lstrip("/") if storage.is_s3(place) else os.path.relpath(place, base or ".")


def _folder_of(place: str) -> str:
    return place[: place.rfind("/") + 1]


def _identities_of_tables(places: Sequence[str], data: Data) -> dict[str, str]:
    """Of what is used of each: its two columns, and the content of the images that are there."""
    digests, images = {}, dict[str, dict[str, None]]()
    for place in places:
        digests[place], images[place] = hashlib.sha256(), {}
        for row in tables.rows(place, data):
            digests[place].update(f"{row.name!r} {row.captions!r}\n".encode("utf-8", "surrogatepass"))
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


# --- captioned folder


def _folder(data: Data, places: Sequence[str]) -> Iterator[Raw]:
    """Images with a .txt of the same name, one caption a line; a .txt without an image is reported, not passed over."""
    stems: dict[str, list[str]] = {}
    for place in places:
        stems.setdefault(place.rsplit(".", 1)[0], []).append(place)
    for place in places:
        stem = place.rsplit(".", 1)[0]
        group = sorted(stems[stem], key=_is_text)  # the image first: it is where the record stands
        if place != group[0]:
            continue
        parts = {f".{path.rsplit('.', 1)[1].lower()}": _file(path) for path in group}
        raw = assembled(place, stem.removeprefix(data.path.rstrip("/")).lstrip("/"), parts)
        if raw.captions is None and not raw.fault:
            detail = f"{shown(raw.found)}; captions are read from {visible(stem.rsplit('/', 1)[-1])}.txt beside it"
            raw = replace(raw, fault=("missing_caption", detail))
        yield raw


def _file(place: str) -> Part:
    content = storage.read_bytes(place)
    if content is None:
        raise InputError(f"{place} is gone since it was listed.", "Run the same command again.")
    return Part(place.rsplit("/", 1)[-1], content)


def _is_text(place: str) -> bool:
    return place.lower().endswith(".txt")
