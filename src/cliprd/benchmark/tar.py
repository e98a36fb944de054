"""Reading a tar member by member, and noticing when it is not whole."""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cliprd.errors import InputError

_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """The regular files of an uncompressed tar, in order, each with a function that reads it now.

    `tarfile` takes a damaged header in the middle for the end of the archive and says nothing; so the end is checked:
    after the last member there must be the zero blocks that close an archive, and nothing else.

    Raises:
        InputError: the tar cannot be opened, is damaged or ends early.
    """
    with path.open("rb") as file:
        start = file.read(6)
    for mark, program in _COMPRESSED.items():
        if start.startswith(mark):
            raise InputError(f"{path} is compressed by {program}.", f"Unpack it ({program} -d) under the same name.")
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            while (info := tar.next()) is not None:
                end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK if info.isreg() else info.offset_data
                if info.issparse():
                    raise _damaged(path, f"{info.name} is stored as a sparse file")
                if info.islnk() or info.issym():
                    raise _damaged(path, f"{info.name} holds no content but points to {info.linkname}")
                if info.isreg():
                    yield info, functools.partial(_read, tar, info, path)
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
        with path.open("rb") as file:
            file.seek(end)
            closing = False
            while block := file.read(1 << 20):
                closing = True
                if block.strip(b"\0"):
                    raise _damaged(path, f"there is no member at byte {end}, yet more data")
            if not closing:
                raise _damaged(path, "it ends early, without an end-of-archive mark")
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, str(error)) from error


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> bytes:
    file = tar.extractfile(info)
    data = file.read() if file else b""
    if len(data) != info.size:
        raise _damaged(path, f"{info.name} has {len(data)} of {info.size} bytes")
    return data


def _damaged(path: Path, how: str) -> InputError:
    return InputError(f"{path} is damaged: {how}.", "Fetch or pack the task again.")
