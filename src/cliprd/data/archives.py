"""Samples of a WebDataset tar.

Tars are read with `tarfile`, not with the `webdataset` library, which takes a damaged or truncated tar as the end of
the data, lets a second file of the same name replace the first, and joins neighbours of equal key. Here each of these
is reported. The layout is WebDataset's.
"""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar

from cliprd import storage
from cliprd.data.raw import APART, Part, Raw, assembled, is_companion, shown, split_name
from cliprd.data.tar import Member, entries
from cliprd.data.unpacking import DAMAGED, unpacked
from cliprd.errors import InputError

T = TypeVar("T")


def samples(url: str) -> Iterator[Raw]:
    """Records of one tar, plain or compressed, in its order, streaming.

    Raises:
        InputError: missing, no tar, damaged or truncated. RetryableError: the store failed.
    """
    with storage.open_stream(url) as file:
        try:
            plain = unpacked(url, file)
            with tarfile.open(fileobj=plain, mode="r|", tarinfo=Member) as tar:
                yield from _with_apart(
                    assembled(f"{url}:{key}", key, parts, ("skipped",) * skipped)
                    for key, parts, skipped in _groups(url, tar, functools.partial(_part, tar))
                )
        except (tarfile.TarError, *DAMAGED) as error:
            raise _damaged(url, error) from error


def names(url: str) -> Iterator[dict[str, bool]]:
    """For each sample of a tar: ending → whether it is a regular file. Contents are skipped.

    Raises:
        As `samples`.
    """
    with storage.open_stream(url) as file:
        try:
            plain = unpacked(url, file)
            seekable = plain is file and not storage.is_s3(url)
            with tarfile.open(fileobj=plain, mode="r:" if seekable else "r|", tarinfo=Member) as tar:
                for _, parts, _ in _groups(url, tar, lambda entry, name: entry.isfile()):
                    yield parts
        except (tarfile.TarError, *DAMAGED) as error:
            raise _damaged(url, error) from error


def places(url: str) -> Iterator[tuple[int, dict[str, bool]]]:
    """As `names`, each after the byte of the file at which the sample starts; of a compressed tar about there.

    What is behind the last sample that the caller takes is not read.
    """
    with storage.open_stream(url) as file:
        meter = _Meter(file)
        counted = io.BufferedReader(meter)
        try:
            plain = unpacked(url, counted)
            with tarfile.open(fileobj=plain, mode="r|", tarinfo=Member) as tar:
                for _, parts, _ in _groups(url, tar, lambda entry, name: (entry.offset, entry.isfile())):
                    start = min(place for place, _ in parts.values()) if plain is counted else meter.count
                    yield start, {ending: is_file for ending, (_, is_file) in parts.items()}
        except (tarfile.TarError, *DAMAGED) as error:
            raise _damaged(url, error) from error


class _Meter(io.RawIOBase):
    """Counts the bytes that are read of a file."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self.count = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def _groups(
    url: str, tar: tarfile.TarFile, read: Callable[[tarfile.TarInfo, str], T]
) -> Iterator[tuple[str, dict[str, T], int]]:
    """WebDataset's rule: consecutive files with the same name up to the first dot of the base name are one sample.

    Args:
        read: (entry, base name) → what to keep of it.

    Yields:
        Name; lower-case ending → what was read; number of skipped companion files of macOS or Windows.
    """
    key, parts, skipped = None, dict[str, T](), 0
    for entry in entries(tar, url):
        if entry.isdir():
            continue
        if is_companion(entry.name):
            skipped += 1
            continue
        name, extension = split_name(entry.name)
        if key is not None and (name != key or extension in parts):  # an ending again: another sample of the same key
            yield key, parts, skipped
            parts, skipped = {}, 0
        key = name
        parts[extension] = read(entry, PurePosixPath(entry.name).name)
    if key is not None:
        yield key, parts, skipped


def _damaged(url: str, error: Exception) -> InputError:
    return InputError(f"{url} is damaged or truncated: {error}.", "Download or build this tar again.")


def _part(tar: tarfile.TarFile, entry: tarfile.TarInfo, name: str) -> Part:
    if not entry.isfile():
        return Part(name, link=entry.linkname or "a device or pipe")
    member = tar.extractfile(entry)
    return Part(name, member.read() if member else b"")


def _with_apart(records: Iterator[Raw]) -> Iterator[Raw]:
    """Reject a group of files that completes an earlier incomplete one of the same key, with a reason of its own."""
    lacking: dict[str, bool] = {}  # source → whether it has the image; incomplete ones only
    for raw in records:
        has_image, has_caption = raw.image is not None, raw.captions is not None
        if has_image == has_caption or raw.fault or lacking.setdefault(raw.source, has_image) == has_image:
            yield raw
        else:
            detail = (
                f"{shown(raw.found)}; the files of a sample are not adjacent in the tar: pack it with tar --sort=name"
            )
            yield replace(raw, fault=(APART, detail))
