"""Whole objects: list, send, fetch, copy, remove."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from cliprd.errors import CliprdError, InputError, MachineError, RetryableError
from cliprd.parallel import ordered_map
from cliprd.storage import s3
from cliprd.storage.paths import label, split
from cliprd.storage.streams import ObjectReader

PART = 16 << 20  # bytes; larger files go up and come down in parts, several at once
PARALLEL = 4
_READ = 1 << 18  # at once; what is lost when a connection breaks
_BATCH = 1000  # keys in one request to delete


class ObjectInfo(NamedTuple):
    """What a listing says of an object; the ETag identifies its content."""

    size: int
    etag: str


def keys(prefix: str) -> dict[str, ObjectInfo]:
    """All keys of the bucket that begin with the prefix of an address (not only those below it as a folder).

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    bucket, start = split(prefix)
    found: dict[str, ObjectInfo] = {}
    more: dict[str, str] = {}

    def page() -> Any:
        with s3.errors(prefix):
            reply = s3.client().list_objects_v2(Bucket=bucket, Prefix=start, **more)
        if "IsTruncated" not in reply:  # a reply cut to nothing is read as an empty one
            raise RetryableError(f"{prefix}: the listing broke off.", "Try again.")
        return reply

    while True:
        reply = s3.retrying(page)
        found |= {item["Key"]: ObjectInfo(item["Size"], item["ETag"]) for item in reply.get("Contents", ())}
        if not reply["IsTruncated"]:
            return found
        more = {"ContinuationToken": reply["NextContinuationToken"]}


def entries(url: str) -> dict[str, ObjectInfo]:
    """Relative name → size and ETag of every object in a folder."""
    prefix = split(url)[1].rstrip("/") + "/"
    found = keys(url.rstrip("/") + "/")
    skip = len(prefix.lstrip("/"))
    return {key[skip:]: entry for key, entry in found.items() if not key.endswith("/")}


def list_folder(url: str) -> dict[str, int]:
    """Relative name → size of every object in a folder; none where there is no such folder.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    return {name: entry.size for name, entry in entries(url).items()}


def versions(url: str) -> dict[str, str]:
    """Relative name → what identifies the content of every object in a folder, without reading any.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    return {name: f"{entry.etag} {entry.size}" for name, entry in entries(url).items()}


def head(url: str) -> ObjectInfo:
    """Size and ETag of one object.

    Raises:
        Missing: it is not there. InputError: forbidden. RetryableError: the network or the store failed.
    """
    bucket, key = split(url)
    try:
        with s3.errors(url):
            reply = s3.client().get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
            # Not HEAD: a reply that breaks off within a header would give another size. A byte behind them proves them.
            if reply["Body"].read(1):
                return ObjectInfo(int(reply["ContentRange"].rpartition("/")[2]), reply["ETag"])
            if _is_empty(bucket, key, reply["ETag"]):  # a store that does not refuse a range of nothing
                return ObjectInfo(0, reply["ETag"])
        raise RetryableError(f"{url}: the reply broke off.", "Try again.")
    except s3.Empty:
        with s3.errors(url):
            return ObjectInfo(0, s3.client().head_object(Bucket=bucket, Key=key)["ETag"])


def _is_empty(bucket: str, key: str, version: str) -> bool:
    found = s3.client().head_object(Bucket=bucket, Key=key)
    return bool(found["ContentLength"] == 0 and found["ETag"] == version)


def etag(url: str) -> str:
    """What S3 says identifies an object's content, without reading it: ETag and size."""
    found = s3.retrying(lambda: head(url))
    return f"{found.etag} {found.size}"


def upload(path: Path, url: str) -> ObjectInfo:
    """Send a file, in parts where it is large. It is there whole or not at all.

    boto3 sends a checksum with each part, which the store checks (`AWS_REQUEST_CHECKSUM_CALCULATION`).

    Returns:
        What the store says of it. A file that grows meanwhile is sent as far as it reached at the start.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    bucket, key = split(url)

    def send() -> ObjectInfo:
        with path.open("rb") as file, s3.errors(url):
            size = os.fstat(file.fileno()).st_size
            s3.client().upload_fileobj(file, bucket, key, Config=_config(use_threads=size > PART))
        found = head(url)
        if found.size < size:
            raise RetryableError(f"{url} has {found.size} bytes, {size} were sent.", "Try again.")
        return found

    return s3.retrying(send)


def copy(source: str, target: str) -> None:
    """Copy an object inside the store; its bytes do not come here.

    Raises:
        Missing: it is not there. InputError: forbidden. RetryableError: the network or the store failed.
    """
    (bucket, key), (to_bucket, to_key) = split(source), split(target)

    def send() -> None:
        with s3.errors(source):
            s3.client().copy({"Bucket": bucket, "Key": key}, to_bucket, to_key, Config=_config())

    s3.retrying(send)


def remove(*urls: str) -> None:
    """Delete objects; those that are not there are no error.

    Raises:
        InputError: no such bucket, forbidden. RetryableError: the network or the store failed.
    """
    buckets: dict[str, list[str]] = {}
    for url in urls:
        bucket, key = split(url)
        buckets.setdefault(bucket, []).append(key)
    for bucket, found in buckets.items():
        for start in range(0, len(found), _BATCH):
            _remove(bucket, found[start : start + _BATCH])


def _remove(bucket: str, found: list[str]) -> None:
    def send() -> None:
        with s3.errors(f"s3://{bucket}"):
            reply = s3.client().delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in found]})
        for error in reply.get("Errors", ()):
            raise InputError(f"s3://{bucket}/{error['Key']} cannot be removed: {error['Code']}.", "Check your rights.")
        if len(reply.get("Deleted", ())) != len(found):
            raise RetryableError(f"s3://{bucket}: the reply to a removal broke off.", "Try again.")

    s3.retrying(send)


def abandon_uploads(url: str, *, before: datetime | None = None) -> None:
    """Remove the parts of uploads into a folder that a killed process has begun: they are paid for and never seen.

    Where the store forbids that or does not know it, they stay.

    Args:
        before: only those that were begun earlier, by the store's clock.
    """
    bucket, key = split(url)
    with contextlib.suppress(CliprdError):
        for item in s3.retrying(lambda: _uploads(bucket, key, url)):
            if before is None or item["Initiated"] < before:
                with contextlib.suppress(CliprdError), s3.errors(url):  # another process has completed or removed it
                    s3.client().abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])


def _uploads(bucket: str, key: str, url: str) -> list[dict[str, Any]]:
    with s3.errors(url):
        pages = s3.client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=f"{key}/")
        return [item for page in pages for item in page.get("Uploads", ())]


def modified(url: str) -> datetime | None:
    """When an object was written, by the store's clock; None where there is none."""
    bucket, key = split(url)

    def ask() -> datetime | None:
        try:
            with s3.errors(url):
                written: datetime = s3.client().head_object(Bucket=bucket, Key=key)["LastModified"]
                return written
        except s3.Missing:
            return None

    return s3.retrying(ask)


def download(
    url: str, path: Path, *, size: int | None = None, sha256: str | None = None, version: ObjectInfo | None = None
) -> ObjectInfo:
    """Fetch an object, in parts where it is large, and move it into place when it is whole and what it should be.

    What an interrupted call has fetched lies in `.<name>.<version>.part` beside it; the next call goes on from there.

    Args:
        url: of the object.
        path: file to write.
        size, sha256: that it must have, where they are known.
        version: as it was listed; another one is not fetched.

    Returns:
        What the store says of the version that was fetched.

    Raises:
        Missing: it is not there. InputError: it is of another size or content than it must be, or forbidden.
        RetryableError: the network or the store failed, or it was replaced meanwhile.
    """
    there = s3.retrying(lambda: head(url))
    if version is not None and there != version:
        raise RetryableError(f"{url} was replaced while its folder was fetched.", "Try again.")
    if size is not None and there.size != size:
        raise _damaged(url, f"{there.size} bytes, expected {size}")
    part = path.with_name(f".{path.name}.{label(there.etag)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with part.open("ab+") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not part.exists() or os.fstat(file.fileno()).st_ino != part.stat().st_ino:
                if path.is_file() and path.stat().st_size == there.size:
                    return there  # another thread or process has brought it meanwhile
                continue
            done = os.fstat(file.fileno()).st_size
            file.seek(0)
            known = hashlib.file_digest(file, "sha256")
            try:
                for block in _blocks(url, there.etag, done, there.size):
                    file.write(block)
                    known.update(block)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                raise MachineError(
                    f"No space left on the disk of {path.parent}.",
                    "Free some, or set CLIPRD_SCRATCH to another disk or CLIPRD_CACHE_BYTES to less.",
                ) from error
            if sha256 is None or known.hexdigest() == sha256:
                os.replace(part, path)
                return there
            part.unlink()
            if not done:  # else the part that was here already may be the damaged one
                raise _damaged(url, f"sha256 {known.hexdigest()[:12]}…, expected {sha256[:12]}…")


def _blocks(url: str, version: str, start: int, stop: int) -> Iterator[bytearray]:
    """The bytes in order, some parts ahead."""

    def fetch(begin: int) -> bytearray:
        block = bytearray(min(PART, stop - begin))
        place = 0
        with ObjectReader(url, start=begin, stop=begin + len(block), etag=version) as body, memoryview(block) as view:
            while count := body.readinto(view[place : place + _READ]):
                place += count
        return block

    yield from ordered_map(fetch, range(start, stop, PART), workers=PARALLEL, ahead=PARALLEL + 1)


def _config(*, use_threads: bool = True) -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=PARALLEL, use_threads=use_threads
    )


def _damaged(url: str, how: str) -> InputError:
    return InputError(f"{url} is damaged: {how}.", "Run the stage that makes it again.")
