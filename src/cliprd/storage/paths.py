"""Names of places: what is in S3, what is here, and where this machine keeps copies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeGuard

from cliprd.errors import EnvironmentError_, InputError

SCHEME = "s3://"
Location = Path | str
"""A folder: a `Path` here, or a str `s3://bucket/prefix` (`Path` would make one slash of the two)."""


def is_s3(location: Location) -> TypeGuard[str]:
    """Whether `location` names an object or prefix in S3."""
    return isinstance(location, str) and location.startswith(SCHEME)


def parse(text: Location) -> Location:
    """What a command line or caller gave, as a `Location`: S3 addresses without a slash at the end, else a `Path`.

    Raises:
        InputError: an S3 address without a bucket, or an address of another kind.
    """
    if isinstance(text, Path) and text.parts[:1] == ("s3:",):  # a caller has made a Path of an address
        text = SCHEME + "/".join(text.parts[1:])
    if not is_s3(text):
        if "://" in str(text):
            raise InputError(f"{text} is neither here nor in S3.", "Give a folder here, or s3://bucket/prefix.")
        return Path(text)
    if not split(text)[0]:
        raise InputError(f"{text} names no bucket.", "Write s3://bucket/prefix.")
    return text.rstrip("/")


def split(url: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    return bucket, key


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
        EnvironmentError_: it cannot be made.
    """
    base = os.environ.get("CLIPRD_SCRATCH")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cliprd"
    folder = folder.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentError_(
            f"{folder} cannot be made: {error.strerror}.", "Set CLIPRD_SCRATCH to a folder on a local disk."
        ) from error
    return folder


def label(text: str) -> str:
    """A short name for a folder that belongs to `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
