"""One record of a source before any check, and how the files of a sample form one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from cliprd.data.endings import PICTURES
from cliprd.names import visible
from cliprd.reading import parse_json

APART = "parts_apart"
_NAMED = 8  # files that a rejection's detail lists
_COMPANIONS = (".ds_store", "thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Raw:
    """One record before any check.

    Attributes:
        source: its location for messages: tar and key, file, or CSV line.
        key: proposed key, valid for WebDataset.
        image: encoded bytes, or None if there is no image.
        captions: undecoded bytes, one item a caption; None if there is no caption field.
        fault: (code, detail) of a problem known from reading, such as a broken JSON field.
        found: names of its files, for the detail of a rejection.
        notes: events to count, such as `multi_line_fields`; one may occur several times.
    """

    source: str
    key: str
    image: bytes | None
    captions: tuple[bytes, ...] | None
    fault: tuple[str, str] | None = None
    found: tuple[str, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Part:
    """One file of a sample.

    Attributes:
        name: base name.
        data: content; empty for a link.
        link: target of a link in a tar, or a description of a device or pipe; empty for a regular file.
    """

    name: str
    data: bytes = b""
    link: str = ""


def split_name(path: str) -> tuple[str, str]:
    """WebDataset's rule: a file's key and lower-case ending, split at the first dot of the base name."""
    file = PurePosixPath(path)
    base, _, ending = file.name.partition(".")
    return str(file.with_name(base)) if base else file.name, f".{ending.lower()}"


def assembled(source: str, key: str, parts: Mapping[str, Part], notes: tuple[str, ...] = ()) -> Raw:
    """The record of a sample's files.

    Args:
        source: see `Raw`.
        key: its name before the first dot.
        parts: lower-case ending from the first dot on (`.jpg`, `.input.jpg`) → file.
        notes: see `Raw`.
    """
    images = [extension for extension in parts if extension in PICTURES]
    names = tuple(part.name for part in parts.values())
    image = parts[images[0]].data if images else None
    captions, fault = None, None
    if ".txt" in parts:
        captions = lines(parts[".txt"].data)
    elif ".json" in parts:
        captions, fault = _json_captions(parts[".json"].data)
    fault = _unusable(parts, images) or fault
    return Raw(source, safe_key(key), image, captions, fault, names, notes)


def _unusable(parts: Mapping[str, Part], images: list[str]) -> tuple[str, str] | None:
    """Why a sample's files cannot be used, judged by their names and kinds; None if they can."""
    files = shown(part.name for part in parts.values())
    used = [*images, ".txt" if ".txt" in parts else ".json"]
    for part in (parts[extension] for extension in used if extension in parts):
        if part.link:
            return "link", (
                f"{visible(part.name)} is a link to {visible(part.link)}; {files}; "
                "pack files: tar --dereference --hard-dereference"
            )
    if len(images) > 1:
        return "several_images", f"{files}; a sample has one picture"
    nested = [extension for extension in parts if extension.count(".") > 1]
    pictures = any(extension.endswith(PICTURES) for extension in nested)
    captioned = ".txt" in parts or ".json" in parts
    if (not images and pictures) or (images and not captioned and any(end.endswith(".txt") for end in nested)):
        return "nested_ending", (
            f"{files}; the ending begins at the first dot of a name: rename them to KEY.jpg and KEY.txt"
        )
    return None


def shown(names: object) -> str:
    """`found: a.png, a.cls`, with at most `_NAMED` names."""
    listed = [visible(str(name)) for name in names]  # type: ignore[attr-defined]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"found: {', '.join(listed[:_NAMED]) or 'nothing'}{more}"


def is_companion(path: str) -> bool:
    """Whether macOS or Windows put this file beside the user's own: `._x`, `__MACOSX/`, `.DS_Store`, `Thumbs.db`."""
    *folders, base = path.rstrip("/").split("/")
    return base.startswith("._") or base.lower() in _COMPANIONS or "__MACOSX" in (*folders, base)


def safe_key(name: str) -> str:
    """A key of at most 80 characters without dots, slashes and spaces, which have a meaning in WebDataset.

    A name that has to be changed gets a digest of itself appended, so that different names stay different.
    """
    clean = re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_")
    if clean == name and 0 < len(name) <= 80:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{clean[-67:].strip('_') or 'sample'}-{digest}"


def lines(text: bytes) -> tuple[bytes, ...]:
    """One caption a line, with any kind of line ending."""
    return tuple(re.split(rb"\r\n|\r|\n", text))


def _json_captions(text: bytes) -> tuple[tuple[bytes, ...] | None, tuple[str, str] | None]:
    """img2dataset's `caption` field: a string, or a list of them."""
    try:
        metadata = parse_json(text)
    except ValueError as error:
        return None, ("broken_json", " ".join(str(error).split())[:200])
    if not isinstance(metadata, dict):
        return None, ("broken_json", f"it holds a {type(metadata).__name__}, not an object with a caption")
    value: Any = metadata.get("caption")
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(value, str) for value in values):
        return None, None
    return tuple(value.encode("utf-8", "surrogatepass") for value in values), None
