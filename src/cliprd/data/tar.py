"""Reading tars: those of others by `tarfile`, made to notice damage; our own shards at ten times the speed.

A shard is a plain USTAR archive of regular files (`shards.write_shard`): 512 bytes of header, then the content, filled
up to whole blocks; a block of zeros closes it. Whatever is otherwise is damaged.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from cliprd.errors import InputError

_BLOCK = 512
_SUM_FROM, _SUM_TO = 148, 156  # the header's checksum, itself counted as spaces
_REGULAR = (ord("0"), 0)


class Member(tarfile.TarInfo):
    """A header that is broken or cut ends `tarfile`'s iteration as if the archive ended there; here it is an error."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Member:
        """The next header, as `tarfile` asks for it."""
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the two zero blocks: a proper end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from error


def entries(tar: tarfile.TarFile, where: str) -> Iterator[tarfile.TarInfo]:
    """All entries of an archive that was opened with `Member`; behind the mark that ends it only zeros may follow.

    Raises:
        InputError: more follows. tarfile.TarError: it is damaged or cut short.
    """
    for entry in tar:
        tar.members.clear()  # type: ignore[attr-defined]  # it remembers every entry: a gigabyte for a million samples
        yield entry
    while block := tar.fileobj.read(1 << 20):  # of a compressed file up to its checksum
        if block.strip(b"\0"):
            raise InputError(
                f"{where} has data after the end of the archive.",
                "If tars were joined with `cat`, join them with `tar --concatenate` or name them one by one; else "
                "download it again.",
            )


def tar_files(path: Path, *, only: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file whose name ends with `only`; the others are skipped, not read.

    Raises:
        InputError: missing, cut short, or not of that form.
    """
    try:
        with path.open("rb", buffering=1 << 18) as file:
            while (header := file.read(_BLOCK)).strip(b"\0"):
                name, size = _entry(header)
                padding = -size % _BLOCK
                if not name.endswith(only):
                    file.seek(size + padding, 1)
                    continue
                content = file.read(size)
                if len(content) != size or len(file.read(padding)) != padding:
                    raise ValueError(f"it ends within {name}")
                yield name, content
            if not header:
                raise ValueError("it ends early, without an end-of-archive mark")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def tar_places(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, where its content begins, size) of each file; only headers are read.

    Raises:
        InputError: missing, cut short, or not of that form.
    """
    try:
        end = path.stat().st_size
        with path.open("rb") as file:
            while (header := file.read(_BLOCK)).strip(b"\0"):
                name, size = _entry(header)
                start = file.tell()
                if file.seek(size + -size % _BLOCK, 1) > end:
                    raise ValueError(f"it ends within {name}")
                yield name, start, size
            if not header:
                raise ValueError("it ends early, without an end-of-archive mark")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InputError:
    """The refusal of a shard."""
    return InputError(f"{path} is damaged: {error}.", "Delete its folder and run `cliprd prepare` again.")


def _entry(header: bytes) -> tuple[str, int]:
    """Name and size."""
    counted = sum(header) - sum(header[_SUM_FROM:_SUM_TO]) + ord(" ") * (_SUM_TO - _SUM_FROM)
    if len(header) != _BLOCK or counted != int(header[_SUM_FROM:_SUM_TO].rstrip(b" \0") or b"0", 8):
        raise ValueError("a header does not fit its checksum")
    if header[156] not in _REGULAR:
        raise ValueError("it holds what is no regular file")
    return header[:100].rstrip(b"\0").decode(), int(header[124:136].rstrip(b" \0") or b"0", 8)
