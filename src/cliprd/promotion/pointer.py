"""`champion.json`, which names the champion of a folder: its format, and what tells damage and edits by hand.

    {"schema": 1,
     "version", "marks", "benchmarks": how many, "decision", "asked_by",     # of the champion
     "rolled_back_by": {"who", "what"},                                      # where a rollback has brought it back
     "before": [entries, oldest first], "withdrawn": [entries, "by" whom],   # {"version", "marks", "benchmarks", ...}
     "digest": sha256 of all else as canonical JSON}

A file without `schema` and `digest` is of an older cliprd and is read; the next promotion or rollback adds both.
"""

from __future__ import annotations

import functools
import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from cliprd import files, storage
from cliprd.errors import InputError

NAME = "champion.json"
SCHEMA = 1
VERSION = r"[0-9a-f]{20}"


class LostPointer(InputError):
    """It is missing beside promoted versions, damaged, or was edited; `cliprd rollback --to` restores it.

    Attributes:
        content: what it holds; None where there is none.
    """

    def __init__(self, problem: str, remedy: str = "", *, content: bytes | None) -> None:
        super().__init__(problem, remedy)
        self.content = content


class _Entry(BaseModel):
    version: Annotated[str, StringConstraints(pattern=f"^{VERSION}$")]
    marks: list[str] = []
    benchmarks: Annotated[int, Field(strict=True, ge=1)] = 1
    asked_by: dict[str, str] = {}
    by: dict[str, str] = {}


class _Pointer(_Entry):
    decision: dict[str, Any] = {}
    rolled_back_by: dict[str, str] = {}
    before: list[_Entry] = []
    withdrawn: list[_Entry] = []


def read(place: str) -> tuple[dict[str, Any] | None, bytes | None]:
    """The content without schema and digest, and the bytes it was read from; None where there is no such file.

    Raises:
        LostPointer: it is damaged, or was edited by hand.
        InputError: it is no file, cannot be read, or is of a newer cliprd. RetryableError: the store failed.
    """
    path = storage.join(place, NAME)
    if not storage.is_s3(path):
        _check_kind(Path(path))
    data = storage.read_bytes(path)
    return (None, None) if data is None else (_parsed(path, data), data)


def encode(content: Mapping[str, Any]) -> bytes:
    """The file's bytes."""
    body = {**content, "schema": SCHEMA}
    return (json.dumps({**body, "digest": files.digest(body)}, indent=2, sort_keys=True) + "\n").encode()


def _check_kind(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check promote.champion.") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
        raise InputError(
            f"{path} is {kind} where cliprd keeps a file that it replaces.",
            "Move it away, and put the file itself there or restore it with `cliprd rollback --to VERSION`.",
        )


def _parsed(path: str, data: bytes) -> dict[str, Any]:
    def damaged(why: str) -> LostPointer:
        return LostPointer(f"{path} is damaged or was edited by hand: {why}.", content=data)

    try:
        found = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise damaged("it is not JSON" if data.strip() else "it is empty") from error
    if not isinstance(found, dict):
        raise damaged("it is no JSON object")
    schema = found.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise InputError(
            f"{path} has schema {schema}; this cliprd reads schema {SCHEMA}.", "Use the cliprd that wrote it."
        )
    older = not {"schema", "digest"} & found.keys()
    if not older and not _sealed(found):
        raise damaged("its content does not match its digest")
    found = {name: value for name, value in found.items() if name not in ("schema", "digest")}
    try:
        _Pointer.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if older:
        _report_older(path)
    return found


def _sealed(found: Mapping[str, Any]) -> bool:
    body = {name: value for name, value in found.items() if name != "digest"}
    try:
        return type(found.get("schema")) is int and found.get("digest") == files.digest(body)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@functools.cache
def _report_older(path: str) -> None:
    print(
        f"cliprd: {path} has no digest, as an older cliprd wrote it; the next promotion or rollback adds one.",
        file=sys.stderr,
    )
