"""One record as found in a source, and how the files of a sample become one."""

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
_NAMED = 8  # files that a detail names
_COMPANIONS = (".ds_store", "thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Raw:
    """One record as found; nothing is checked yet.

    Attributes:
        source: where it stands, for people: tar and key, file, or CSV line.
        key: proposed key, fit for WebDataset.
        image: encoded bytes, or None where there is no image.
        captions: bytes as found, one item a caption; None where there is no caption field at all.
        fault: a reason known already from reading (code, detail), such as a broken JSON field.
        found: names of the files it was made from, for the detail of a rejection.
        notes: what is worth counting, such as `multi_line_fields`; a kind may come several times.
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
        name: base name as found.
        data: content; empty for a link.
        link: what it points to, where it is a link in a tar; a name for a device or pipe.
    """

    name: str
    data: bytes = b""
    link: str = ""


def split_name(path: str) -> tuple[str, str]:
    """WebDataset's rule: a file's key, and its ending in lower case, which begins at the first dot of the base name."""
    whole = PurePosixPath(path)
    base, _, ending = whole.name.partition(".")
    return str(whole.with_name(base)) if base else whole.name, f".{ending.lower()}"


def assembled(source: str, key: str, parts: Mapping[str, Part], notes: tuple[str, ...] = ()) -> Raw:
    """The record of a sample's files.

    Args:
        source: where it stands.
        key: its name before the first dot.
        parts: lower-case ending from the first dot on (`.jpg`, `.input.jpg`) → file.
        notes: see `Raw`.
    """
    images = [extension for extension in parts if extension in PICTURES]
    found = tuple(part.name for part in parts.values())
    image = parts[images[0]].data if images else None
    captions, fault = None, None
    if ".txt" in parts:
        captions = lines(parts[".txt"].data)
    elif ".json" in parts:
        captions, fault = _json_captions(parts[".json"].data)
    fault = _unusable(parts, images) or fault
    return Raw(source, safe_key(key), image, captions, fault, found, notes)


def _unusable(parts: Mapping[str, Part], images: list[str]) -> tuple[str, str] | None:
    """What forbids the use of a sample's files before any is looked into."""
    there = shown(part.name for part in parts.values())
    wanted = [*images, ".txt" if ".txt" in parts else ".json"]
    for part in (parts[extension] for extension in wanted if extension in parts):
        if part.link:
            return "link", (
                f"{visible(part.name)} holds no content but points to {visible(part.link)}; {there}; "
                "pack files: tar --dereference --hard-dereference"
            )
    if len(images) > 1:
        return "several_images", f"{there}; a sample has one picture"
    nested = [extension for extension in parts if extension.count(".") > 1]
    pictures = any(extension.endswith(PICTURES) for extension in nested)
    captioned = ".txt" in parts or ".json" in parts
    if (not images and pictures) or (images and not captioned and any(end.endswith(".txt") for end in nested)):
        return "nested_ending", (
            f"{there}; the ending begins at the first dot of a name: rename them to KEY.jpg and KEY.txt"
        )
    return None


def shown(names: object) -> str:
    """`found: a.png, a.cls`, a few of the names."""
    listed = [visible(str(name)) for name in names]  # type: ignore[attr-defined]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"found: {', '.join(listed[:_NAMED]) or 'nothing'}{more}"


def is_companion(path: str) -> bool:
    """Whether macOS or Windows put this file beside the user's own: `._x`, `__MACOSX/`, `.DS_Store`, `Thumbs.db`."""
    *folders, base = path.rstrip("/").split("/")
    return base.startswith("._") or base.lower() in _COMPANIONS or "__MACOSX" in (*folders, base)


def safe_key(name: str) -> str:
    """A key without dots, slashes and spaces, which WebDataset gives a meaning; at most 80 characters.

    A name that had to be changed gets a digest of itself at its end, so that different names stay different.
    """
    clean = re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_")
    if clean == name and 0 < len(name) <= 80:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{clean[-67:].strip('_') or 'sample'}-{digest}"


def lines(text: bytes) -> tuple[bytes, ...]:
    """One caption a line, whatever the line ends."""
    return tuple(re.split(rb"\r\n|\r|\n", text))


def _json_captions(text: bytes) -> tuple[tuple[bytes, ...] | None, tuple[str, str] | None]:
    """img2dataset's `caption` field: a string, or a list of them."""
    try:
        found = parse_json(text)
    except ValueError as error:
        return None, ("broken_json", " ".join(str(error).split())[:200])
    if not isinstance(found, dict):
        return None, ("broken_json", f"it holds a {type(found).__name__}, not an object with a caption")
    value: Any = found.get("caption")
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(value, str) for value in values):
        return None, None
    return tuple(value.encode("utf-8", "surrogatepass") for value in values), None
