"""Names of places: what is in S3, what is here, and where this machine keeps copies."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TypeGuard

from cliprd.errors import InputError, MachineError

SCHEME = "s3://"
Location = Path | str
"""A folder: a `Path` here, or a str `s3://bucket/prefix` (`Path` would make one slash of the two)."""


class BadAddress(InputError):
    """An address that names nothing in S3 as other tools would read it."""


def is_s3(location: Location) -> TypeGuard[str]:
    """Whether `location` names an object or prefix in S3."""
    return isinstance(location, str) and location.startswith(SCHEME)


def parse(text: Location) -> Location:
    """What a command line or caller gave, as a `Location`: S3 addresses without a slash at the end, else a `Path`.

    Raises:
        BadAddress: see `split`, or an address of another kind.
    """
    if isinstance(text, Path) and text.parts[:1] == ("s3:",):  # a caller has made a Path of an address
        text = SCHEME + "/".join(text.parts[1:])
    if not is_s3(text):
        refuse_other_scheme(str(text))
        return Path(text)
    split(text)
    return text.removesuffix("/")


def refuse_other_scheme(text: str) -> None:
    """Raise where `text` is an address, but none of S3 (`s3:/bucket`, `S3://bucket`, `gs://bucket`).

    Raises:
        BadAddress: it is one.
    """
    if re.match(r"s3:", text, re.IGNORECASE) and not is_s3(text):
        raise BadAddress(f"{text} is no address in S3.", "Write s3://bucket/prefix.")
    if "://" in text:
        raise BadAddress(f"{text} is neither here nor in S3.", "Give a folder here, or s3://bucket/prefix.")


def split(url: str) -> tuple[str, str]:
    """Bucket and key.

    Raises:
        BadAddress: no bucket, or a key that stores and tools read in different ways: with two slashes in a row, with
            `.` or `..` between slashes, or with a control character.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise BadAddress(f"{url} names no bucket.", "Write s3://bucket/prefix.")
    parts = key.removesuffix("/").split("/") if key else []
    if "" in parts:
        raise BadAddress(f"{url} has two slashes in a row.", "Write one; rename objects whose keys hold two.")
    if {".", ".."} & set(parts):
        raise BadAddress(f"{url} has '.' or '..' between slashes.", "Write the address without it.")
    if any(ord(char) < 32 or ord(char) == 127 for char in key):
        raise BadAddress(f"{url!r} holds a control character.", "Rename the object.")
    return bucket, key


def names_object(url: str) -> bool:
    """Whether `split` takes it."""
    try:
        split(url)
    except BadAddress:
        return False
    return True


def join(folder: Location, name: str) -> str:
    """`name` inside `folder`."""
    return f"{str(folder).rstrip('/')}/{name}"


def below(folder: Path, name: str) -> Path:
    """`folder / name`, for a name that came from a store or manifest.

    Raises:
        InputError: it leads out of the folder.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"'{name}' is no name of a file inside a folder.", "Find out who wrote it.")
    return folder / name


def scratch(*parts: str) -> Path:
    """A folder for copies of what is in S3: under `$CLIPRD_SCRATCH`, else `$XDG_CACHE_HOME/cliprd`, `~/.cache/cliprd`.

    Raises:
        MachineError: it cannot be made.
    """
    base = os.environ.get("CLIPRD_SCRATCH")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cliprd"
    folder = folder.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"{folder} cannot be made: {error.strerror}.", "Set CLIPRD_SCRATCH to a folder on a local disk."
        ) from error
    return folder


def label(text: str) -> str:
    """A short name for a folder that belongs to `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
