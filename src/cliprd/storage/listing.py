"""Which files a path names: a folder, glob, brace pattern, file or S3 prefix."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cliprd.errors import InputError
from cliprd.names import shortened
from cliprd.storage.paths import SCHEME, is_s3, refuse_other_scheme, split
from cliprd.storage.transfer import keys

MOST_FILES = 1_000_000  # that a brace pattern may name
_NUMBERS = re.compile(r"(\d{1,18})\.\.(\d{1,18})(?:\.\.(\d{1,18}))?")
_WILD = re.compile(r"[*?\[]")
_SPECIAL = re.compile(r"[*?\[{]")


def expand_braces(pattern: str) -> list[str]:
    """WebDataset's brace notation: `a{00..02}.tar`, `{2..0}`, `{0..8..2}` and `{x,y}`, several multiplied in order.

    Raises:
        InputError: these are more than `MOST_FILES`.
    """
    found = list(itertools.islice(_expanded(pattern), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise InputError(
            f"{shortened(pattern, 200)} names more than {MOST_FILES:,} files.",
            "Pack them into fewer, or mend the braces.",
        )
    return found


def _expanded(pattern: str) -> Iterator[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        yield pattern
        return
    for option in _options(found.group(1)):
        yield from _expanded(pattern[: found.start()] + option + pattern[found.end() :])


def _options(body: str) -> Iterator[str]:
    numbers = _NUMBERS.fullmatch(body)
    if not numbers:
        yield from body.split(",")
        return
    ends = numbers.group(1, 2)
    first, last = map(int, ends)
    step = (int(numbers.group(3) or 1) or 1) * (1 if first <= last else -1)
    width = max(map(len, ends)) if any(end.startswith("0") and len(end) > 1 for end in ends) else 1
    for number in range(first, last + (1 if step > 0 else -1), step):
        yield f"{number:0{width}d}"


class NoFiles(InputError):
    """A folder or pattern names no file of the endings asked for.

    Args:
        endings: that are there instead, most frequent first.
    """

    def __init__(self, problem: str, remedy: str, endings: tuple[str, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.endings = endings


def list_files(url: str, suffixes: tuple[str, ...], *, recursive: bool = False) -> list[str]:
    """Files under a folder, glob, brace pattern, file or S3 prefix that end in one of `suffixes` (any case).

    What exists by the very name, braces and stars included, is meant before any pattern.

    Returns:
        Sorted by name within each part of a brace pattern, so the order is the same on every machine.

    Raises:
        InputError: nothing is there, or a named file is missing. RetryableError: the store failed.
    """
    if not is_s3(url):
        refuse_other_scheme(url)
    found: list[str] = []
    literal = literal_part(url)
    for pattern in expand_braces(url[len(literal) :]):
        if is_s3(url):
            found += _list_s3(literal, pattern, suffixes, recursive=recursive)
            continue
        try:
            found += _list_here(literal, pattern, suffixes, recursive=recursive)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InputError(
                f"{literal}{pattern} cannot be read: {why}.", "Check data.path and its permissions."
            ) from error
    if not found:
        endings = tuple(_endings_in(url)) if not is_s3(url) and Path(url).is_dir() else ()
        there = f" but {', '.join(endings)}" if endings else ""
        raise NoFiles(
            f"{url} holds no file that ends in {', '.join(suffixes)}{there}.", "Set data.path and data.kind.", endings
        )
    return found


def literal_part(url: str) -> str:
    """The longest beginning of `url` that is no pattern: up to a wildcard, and what exists by that very name."""
    found = _SPECIAL.search(url)
    if not found:
        return url
    start = url[: found.start()]
    if is_s3(url):
        if "/" not in start.removeprefix(SCHEME):
            return start
        bucket, key = split(url)
        there = keys(f"s3://{bucket}/{key.removesuffix('/')}")
        return url if any(f"{name}/".startswith(f"{key.removesuffix('/')}/") for name in there) else start
    parts = url.split("/")
    for count in range(len(parts), 0, -1):
        head = "/".join(parts[:count])
        if len(head) >= len(start) and head and os.path.lexists(head):
            return url if count == len(parts) else f"{head}/"
    return start


def _list_here(literal: str, pattern: str, suffixes: tuple[str, ...], *, recursive: bool) -> list[str]:
    path = Path(literal + pattern)
    if path.is_dir():
        entries = path.rglob("*") if recursive else path.iterdir()
        return sorted(str(entry) for entry in entries if _ends(entry.name, suffixes) and entry.is_file())
    if path.is_file():
        return [literal + pattern]
    if _WILD.search(pattern):
        return sorted(name for name in glob.glob(glob.escape(literal) + pattern) if _ends(name, suffixes))
    raise InputError(f"{literal}{pattern} does not exist.", "Set data.path to where the data is.")


def _endings_in(folder: str) -> list[str]:
    """Endings of a folder's files, most frequent first."""
    counts = Counter(path.suffix.lower() for path in Path(folder).iterdir() if path.suffix and path.is_file())
    return [ending for ending, _ in counts.most_common(8)]


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _list_s3(literal: str, pattern: str, suffixes: tuple[str, ...], *, recursive: bool) -> list[str]:
    url = literal + pattern
    if _ends(url, suffixes) and not _WILD.search(pattern):
        return [url]
    bucket, key = split(url)
    wild = _WILD.search(pattern)
    prefix = split(literal + pattern[: wild.start()])[1] if wild else f"{key.rstrip('/')}/".lstrip("/")
    found = [name for name in keys(f"s3://{bucket}/{prefix}") if _ends(name, suffixes)]
    if wild:
        exact = glob.escape(split(literal)[1]) + pattern
        found = [name for name in found if fnmatch.fnmatchcase(name, exact) and name.count("/") == key.count("/")]
    elif not recursive:
        found = [name for name in found if "/" not in name.removeprefix(prefix)]
    return sorted(f"s3://{bucket}/{name}" for name in found)
