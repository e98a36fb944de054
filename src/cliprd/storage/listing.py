"""Which files a path names: a folder, glob, brace pattern, file or S3 prefix."""

from __future__ import annotations

import fnmatch
import glob
import re
from pathlib import Path

from cliprd.errors import InputError
from cliprd.storage.paths import is_s3, split
from cliprd.storage.transfer import keys

_WILD = re.compile(r"[*?\[]")


def expand_braces(pattern: str) -> list[str]:
    """WebDataset's brace notation: `a{00..02}.tar` and `{x,y}`, several ones multiplied left to right."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    body = found.group(1)
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", body):
        width = len(numbers.group(1))
        options = [f"{n:0{width}d}" for n in range(int(numbers.group(1)), int(numbers.group(2)) + 1)]
    else:
        options = body.split(",")
    return [
        url for option in options for url in expand_braces(pattern[: found.start()] + option + pattern[found.end() :])
    ]


def list_files(url: str, suffixes: tuple[str, ...], *, recursive: bool = False) -> list[str]:
    """Files under a folder, glob, brace pattern, file or S3 prefix that end in one of `suffixes` (any case).

    Returns:
        Sorted by name within each part of a brace pattern, so the order is the same on every machine.

    Raises:
        InputError: nothing is there, or a named file is missing. RetryableError: the store failed.
    """
    found: list[str] = []
    for pattern in expand_braces(url):
        if is_s3(pattern):
            found += _list_s3(pattern, suffixes, recursive=recursive)
            continue
        try:
            found += _list_here(pattern, suffixes, recursive=recursive)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InputError(f"{pattern} cannot be read: {why}.", "Check data.path and its permissions.") from error
    if not found:
        raise InputError(f"{url} holds no file that ends in {', '.join(suffixes)}.", "Set data.path and data.kind.")
    return found


def _list_here(pattern: str, suffixes: tuple[str, ...], *, recursive: bool) -> list[str]:
    if Path(pattern).is_dir():
        entries = Path(pattern).rglob("*") if recursive else Path(pattern).iterdir()
        return sorted(str(path) for path in entries if _ends(path.name, suffixes) and path.is_file())
    if Path(pattern).is_file():
        return [pattern]
    if _WILD.search(pattern):
        return sorted(path for path in glob.glob(pattern) if _ends(path, suffixes))
    raise InputError(f"{pattern} does not exist.", "Set data.path to where the data is.")


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _list_s3(url: str, suffixes: tuple[str, ...], *, recursive: bool) -> list[str]:
    if _ends(url, suffixes) and not _WILD.search(url):
        return [url]
    bucket, key = split(url)
    wild = _WILD.search(key)
    prefix = key[: wild.start()] if wild else f"{key.rstrip('/')}/".lstrip("/")
    found = [name for name in keys(f"s3://{bucket}/{prefix}") if _ends(name, suffixes)]
    if wild:
        found = [name for name in found if fnmatch.fnmatchcase(name, key) and name.count("/") == key.count("/")]
    elif not recursive:
        found = [name for name in found if "/" not in name.removeprefix(prefix)]
    return sorted(f"s3://{bucket}/{name}" for name in found)
