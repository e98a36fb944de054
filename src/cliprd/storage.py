"""Paths that are local or `s3://bucket/key`: list, identify and stream. boto3's usual places give credentials."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cliprd.errors import InputError, RetryableError

_WILD = re.compile(r"[*?\[]")
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def is_s3(url: str) -> bool:
    """Whether `url` names an object or prefix in S3."""
    return url.startswith("s3://")


def join(folder: str, name: str) -> str:
    """`name` inside `folder`."""
    return f"{folder.rstrip('/')}/{name}"


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
        elif Path(pattern).is_dir():
            entries = Path(pattern).rglob("*") if recursive else Path(pattern).iterdir()
            found += sorted(str(path) for path in entries if _ends(path.name, suffixes) and path.is_file())
        elif Path(pattern).is_file():
            found.append(pattern)
        elif _WILD.search(pattern):
            found += sorted(path for path in glob.glob(pattern) if _ends(path, suffixes))
        else:
            raise InputError(f"{pattern} does not exist.", "Set data.path to where the data is.")
    if not found:
        raise InputError(f"{url} holds no file that ends in {', '.join(suffixes)}.", "Set data.path and data.kind.")
    return found


@contextlib.contextmanager
def open_stream(url: str) -> Iterator[IO[bytes]]:
    """Open for reading from the start; an S3 object is streamed, not copied.

    Raises:
        InputError: missing or forbidden. RetryableError: the network or the store failed.
    """
    if is_s3(url):
        with _s3_errors(url), contextlib.closing(_get(url)) as body:
            yield body
        return
    try:
        file = Path(url).open("rb")  # noqa: SIM115 - opened apart from its use: the caller's own errors are not ours
    except (*_ABSENT, PermissionError) as error:
        raise InputError(f"{url} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
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
    except InputError as error:
        if isinstance(error.__cause__, _ABSENT) or _status(error.__cause__) == 404:
            return None
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            return None
        raise


def etag(url: str) -> str:
    """What S3 says identifies an object's content, without reading it: ETag and size."""
    bucket, key = _split(url)
    with _s3_errors(url):
        head = _client().head_object(Bucket=bucket, Key=key)
    return f"{head['ETag']} {head['ContentLength']}"


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


@functools.cache
def _client() -> Any:
    import boto3

    return boto3.client("s3")


def _get(url: str) -> Any:
    bucket, key = _split(url)
    return _client().get_object(Bucket=bucket, Key=key)["Body"]


def _list_s3(url: str, suffixes: tuple[str, ...], *, recursive: bool) -> list[str]:
    if _ends(url, suffixes) and not _WILD.search(url):
        return [url]
    bucket, key = _split(url)
    wild = _WILD.search(key)
    prefix = key[: wild.start()] if wild else f"{key.rstrip('/')}/".lstrip("/")
    with _s3_errors(url):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ()) if _ends(item["Key"], suffixes)]
    if wild:
        keys = [name for name in keys if fnmatch.fnmatchcase(name, key) and name.count("/") == key.count("/")]
    elif not recursive:
        keys = [name for name in keys if "/" not in name.removeprefix(prefix)]
    return sorted(f"s3://{bucket}/{name}" for name in keys)


def _status(error: BaseException | None) -> int:
    return int(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def _s3_errors(url: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        problem = f"{url}: {error.response.get('Error', {}).get('Code', _status(error))}."
        if _status(error) in (400, 401, 403, 404):
            raise InputError(problem, "Check the address, AWS_ENDPOINT_URL and the credentials.") from error
        raise RetryableError(problem, "Try again.") from error
    except NoCredentialsError as error:
        raise InputError(f"{url}: no credentials.", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from error
    except BotoCoreError as error:
        raise RetryableError(f"{url}: {error}", "Check AWS_ENDPOINT_URL and the network, then try again.") from error
