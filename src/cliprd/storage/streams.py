"""Reading from the start to the end, wherever the file is and however often the connection breaks."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cliprd import files
from cliprd.errors import InputError, RetryableError
from cliprd.reading import open_regular
from cliprd.storage import s3
from cliprd.storage.paths import is_s3, split

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_BUFFER = 1 << 16  # what is lost when a connection breaks


@contextlib.contextmanager
def open_stream(url: str) -> Iterator[IO[bytes]]:
    """Open for reading from the start; an S3 object is streamed, not copied, and a broken connection is taken up again.

    Raises:
        InputError: missing or forbidden. RetryableError: the network or the store failed.
    """
    if is_s3(url):
        with io.BufferedReader(ObjectReader(url), _BUFFER) as stream:
            yield stream
        return
    try:
        file = open_regular(Path(url))  # opened apart from its use: the caller's own errors are not ours
    except (*_ABSENT, FileExistsError, PermissionError) as error:
        kind = s3.Missing if isinstance(error, _ABSENT) else InputError
        raise kind(f"{url} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    with file:
        yield file


def read_bytes(url: str) -> bytes | None:
    """The whole content, or None where no such file exists (a name that no file can have included).

    Raises:
        InputError: it exists and is forbidden. RetryableError: the network or the store failed.
    """
    try:
        with open_stream(url) as file:
            return file.read()
    except s3.Missing:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            return None
        raise


def write_bytes(url: str, data: bytes) -> None:
    """Replace a small file: a reader sees the old content or the new.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    if not is_s3(url):
        files.sweep_beside(Path(url))
        with files.atomic_write(Path(url)) as file:
            file.write(data)
        return
    bucket, key = split(url)

    def send() -> None:
        with s3.errors(url):
            s3.client().put_object(Bucket=bucket, Key=key, Body=data, ChecksumAlgorithm="SHA256")

    s3.retrying(send)


class ObjectReader(io.RawIOBase):
    """Bytes `start` to `stop` of one version of an object.

    A reply that breaks off is continued where it ended, as long as the object is the one that was begun: the end of
    these bytes is their end, never the end of a connection.

    Args:
        url: of the object.
        start, stop: of the bytes; no `stop`: to the end.
        etag: of the version; none: the one that is there now.

    Raises:
        Missing: no such object. InputError: forbidden.
        RetryableError: the store failed again and again, or the object was replaced meanwhile.
    """

    def __init__(self, url: str, *, start: int = 0, stop: int | None = None, etag: str | None = None) -> None:
        super().__init__()
        self._url, self._place, self._stop, self._etag = url, start, stop, etag
        self._body: Any = None
        self._promised = (0, "")
        s3.retrying(self._connect)  # now: what is missing or forbidden is told before anything is read

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the store gives at once; 0 at the end only."""
        data: bytes = s3.retrying(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        """Give the connection back."""
        self._disconnect()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._stop is not None:
            size = min(size, self._stop - self._place)
        if not size:
            return b""
        try:
            if self._body is None:
                self._connect()
            with s3.errors(self._url):
                data: bytes = self._body.read(size)
            stop, etag = self._promised
            if not data and self._place < stop:
                raise RetryableError(f"{self._url} broke off at byte {self._place} of {stop}.", "Try again.")
        except BaseException:
            self._disconnect()
            raise
        self._stop, self._etag = stop, etag  # headers can break off, too: only now they are known to be whole
        return data

    def _connect(self) -> None:
        bucket, key = split(self._url)
        wanted: dict[str, str] = {"IfMatch": self._etag} if self._etag else {}
        if self._place or self._stop is not None:
            wanted["Range"] = f"bytes={self._place}-{self._stop - 1 if self._stop is not None else ''}"
        with s3.errors(self._url):
            reply = s3.client().get_object(Bucket=bucket, Key=key, **wanted)
            self._body, self._promised = reply["Body"], (self._place + reply["ContentLength"], reply["ETag"])
        begins = reply.get("ContentRange", "bytes 0-").removeprefix("bytes ").partition("-")[0]
        if begins != str(self._place) or self._stop not in (None, self._promised[0]):
            self._disconnect()
            raise RetryableError(f"{self._url}: the store gave other bytes than it was asked for.", "Try again.")

    def _disconnect(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
