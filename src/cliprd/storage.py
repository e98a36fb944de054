"""Paths that are local or `s3://bucket/key`: list and stream. boto3's usual places give credentials and endpoint."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cliprd.errors import InputError, RetryableError


def is_s3(url: str) -> bool:
    """Whether `url` names an object or prefix in S3."""
    return url.startswith("s3://")


def join(folder: str, name: str) -> str:
    """`name` inside `folder`."""
    return f"{folder.rstrip('/')}/{name}"


def expand_braces(pattern: str) -> list[str]:
    """WebDataset's brace notation: `a{00..02}.tar` and `{x,y}`, nested left to right."""
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
    """Files under a folder, glob, brace pattern, file or S3 prefix that end in one of `suffixes`, sorted by name.

    Raises:
        InputError: nothing is there, or a named file is missing.
    """
    found: list[str] = []
    for pattern in expand_braces(url):
        if is_s3(pattern):
            found += [pattern] if pattern.endswith(suffixes) else _list_s3(pattern, suffixes)
        elif Path(pattern).is_dir():
            entries = Path(pattern).rglob("*") if recursive else Path(pattern).iterdir()
            found += sorted(str(path) for path in entries if path.name.endswith(suffixes) and path.is_file())
        elif any(sign in pattern for sign in "*?["):
            found += sorted(path for path in glob.glob(pattern) if path.endswith(suffixes))
        elif Path(pattern).is_file():
            found.append(pattern)
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
    if not is_s3(url):
        try:
            with Path(url).open("rb") as file:
                yield file
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise InputError(f"{url} cannot be read: {error.strerror}.") from error
        return
    bucket, _, key = url.removeprefix("s3://").partition("/")
    with _s3_errors(url):
        body = _client().get_object(Bucket=bucket, Key=key)["Body"]
        with contextlib.closing(body):
            yield body


def _client() -> Any:
    import boto3

    return boto3.client("s3")


def _list_s3(url: str, suffixes: tuple[str, ...]) -> list[str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    with _s3_errors(url):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return sorted(f"s3://{bucket}/{key}" for key in keys if key.endswith(suffixes))


@contextlib.contextmanager
def _s3_errors(url: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        problem = f"{url}: {error.response.get('Error', {}).get('Code', code)}."
        if code in (400, 401, 403, 404):
            raise InputError(problem, "Check the address, AWS_ENDPOINT_URL and the credentials.") from error
        raise RetryableError(problem, "Try again.") from error
    except BotoCoreError as error:
        raise RetryableError(f"{url}: {error}", "Check AWS_ENDPOINT_URL and the network, then try again.") from error
