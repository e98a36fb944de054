"""Detects a file's container by its first bytes: gzip, bzip2 and xz are decompressed, others refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, cast

from cliprd.errors import InputError

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)  # raised when decompressing damaged data
_IMG2DATASET = (
    "img2dataset writes what cliprd reads with --output_format webdataset (data.kind: webdataset) or files (folder)."
)
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it (zstd -d), or pack it with gzip or xz."),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "Unpack it (lz4 -d), or pack it with gzip or xz."),
    b"\x1f\x9d": ("compressed with compress", "Unpack it (uncompress), or pack it with gzip or xz."),
    b"PK\x03\x04": ("a ZIP archive or an Excel sheet", "Unpack it, or export it as CSV."),
    b"PAR1": ("a Parquet file", f"Export it as CSV; {_IMG2DATASET}"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "Unpack it."),
    b"Rar!": ("a RAR archive", "Unpack it."),
    b"ARROW1": ("an Arrow file", "Export it as CSV."),
    b"SQLite format 3": ("an SQLite database", "Export it as CSV."),
}
OTHER_OUTPUTS = {".parquet": _IMG2DATASET, ".tfrecord": _IMG2DATASET}


def unpacked(url: str, file: IO[bytes]) -> io.BufferedReader:
    """`file` itself, or a stream of its decompressed content.

    Args:
        url: of the file, for messages.
        file: a buffered stream at its start.

    Raises:
        InputError: a container of another kind; the message names it.
    """
    head = cast(io.BufferedReader, file).peek(16)[:16]
    for sign, (kind, remedy) in _FOREIGN.items():
        if head.startswith(sign):
            raise InputError(f"{url} is {kind}.", remedy)
    if url.lower().endswith(".tfrecord"):
        raise InputError(f"{url} is a TFRecord file.", _IMG2DATASET)
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return io.BufferedReader(bz2.BZ2File(file))
    if head.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(lzma.LZMAFile(file))
    return cast(io.BufferedReader, file)
