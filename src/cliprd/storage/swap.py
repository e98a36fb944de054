"""Replace a small file only while it is what it was when it was read: of several writers one wins, the others are told.

Here the readers and writers of a file take turns by a lock beside it. In S3 the store decides: the write carries the
version that was read (`If-Match`, or `If-None-Match` where there was none). AWS, Ceph, MinIO and versitygw do that; a
store that passes over these headers leaves what any reading before writing leaves, a moment in which two may win.
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

from cliprd.files import atomic_write
from cliprd.storage import s3
from cliprd.storage.paths import is_s3, split
from cliprd.storage.streams import read_bytes

_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def swap(url: str, data: bytes, *, instead_of: bytes | None) -> bool:
    """Make `data` the content of `url` if its content is `instead_of` (None: there is no such file).

    Returns:
        Whether it is now `data`. False: somebody else has written meanwhile, and nothing was changed.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed; whether the content was
            replaced is then told by reading it.
    """
    return _in_s3(url, data, instead_of) if is_s3(url) else _here(Path(url), data, instead_of)


def _here(path: Path, data: bytes, instead_of: bytes | None) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (path.read_bytes() if path.is_file() else None) != instead_of:
            return False
        with atomic_write(path) as file:
            file.write(data)
        return True


def _in_s3(url: str, data: bytes, instead_of: bytes | None) -> bool:
    from botocore.exceptions import ClientError

    bucket, key = split(url)

    def send() -> bool:
        known = _version(url, instead_of)
        if known is None:
            return read_bytes(url) == data  # a reply that got lost told of our own success
        condition = {"IfMatch": known} if known else {"IfNoneMatch": "*"}
        with s3.errors(url):
            try:
                s3.client().put_object(Bucket=bucket, Key=key, Body=data, ChecksumAlgorithm="SHA256", **condition)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in _LOST:
                    raise
                return read_bytes(url) == data
        return True

    return s3.retrying(send)


def _version(url: str, content: bytes | None) -> str | None:
    """ETag of the version whose content that is; empty where there is no file and should be none; None: another."""
    bucket, key = split(url)
    try:
        with s3.errors(url):
            reply = s3.client().get_object(Bucket=bucket, Key=key)
            same = reply["Body"].read() == content
            return str(reply["ETag"]) if same else None
    except s3.Missing:
        return "" if content is None else None
