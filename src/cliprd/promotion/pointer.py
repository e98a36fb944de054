"""The pointer, which names the champion: its format, and the check that finds damage and edits by hand.

A folder keeps it as `champion.json` (docs/formats.md); MLflow's registry keeps a short form of it in a tag. One without
`schema` and `digest` was written by an older cliprd and is read; the next promotion or rollback adds both.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from cliprd import files
from cliprd.errors import InputError

NAME = "champion.json"
SCHEMA = 1
VERSION = r"[0-9a-f]{20}"  # of a folder
NUMBER = r"[1-9][0-9]{0,8}"  # of a version in the registry; MLflow's databases hold no more


class LostPointer(InputError):
    """It is missing beside promoted versions, damaged, or was edited; `cliprd rollback --to` restores it.

    Attributes:
        state: what `Store.swap` recognises the present state by.
    """

    def __init__(self, problem: str, remedy: str = "", *, state: Any) -> None:
        super().__init__(problem, remedy)
        self.state = state


class _Entry(BaseModel):
    version: Annotated[str, StringConstraints(pattern=f"^({VERSION}|{NUMBER})$")]
    marks: list[str] = []
    benchmarks: Annotated[int, Field(strict=True, ge=1)] = 1
    asked_by: dict[str, str] = {}
    by: dict[str, str] = {}


class _Pointer(_Entry):
    decision: dict[str, Any] = {}
    rolled_back_by: dict[str, str] = {}
    before: list[_Entry] = []
    withdrawn: list[_Entry] = []


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with schema and digest."""
    body = {**content, "schema": SCHEMA}
    return {**body, "digest": files.digest(body)}


def encode(content: Mapping[str, Any]) -> bytes:
    """The bytes of `champion.json`."""
    return (json.dumps(seal(content), indent=2, sort_keys=True) + "\n").encode()


def parse(where: str, data: bytes | str) -> dict[str, Any]:
    """The content without schema and digest; `before` and `withdrawn` are there, however old it is.

    Args:
        where: what to call it in messages.
        data: as it is kept.

    Raises:
        LostPointer: it is damaged, or was edited by hand. InputError: it is of a newer cliprd.
    """

    def damaged(why: str) -> LostPointer:
        return LostPointer(f"{where} is damaged or was edited by hand: {why}.", state=data)

    try:
        sealed = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise damaged("it is not JSON" if data.strip() else "it is empty") from error
    if not isinstance(sealed, dict):
        raise damaged("it is no JSON object")
    schema = sealed.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise InputError(
            f"{where} has schema {schema}; this cliprd reads schema {SCHEMA}.", "Use the cliprd that wrote it."
        )
    older = not {"schema", "digest"} & sealed.keys()
    if not older and not _is_sealed(sealed):
        raise damaged("its content does not match its digest")
    content = {name: value for name, value in sealed.items() if name not in ("schema", "digest")}
    try:
        _Pointer.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if older:
        _report_older(where)
    return {"before": [], "withdrawn": [], **content}


def _is_sealed(sealed: Mapping[str, Any]) -> bool:
    body = {name: value for name, value in sealed.items() if name != "digest"}
    try:
        return type(sealed.get("schema")) is int and sealed.get("digest") == files.digest(body)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@functools.cache
def _report_older(where: str) -> None:
    print(
        f"cliprd: {where} has no digest, as an older cliprd wrote it; the next promotion or rollback adds one.",
        file=sys.stderr,
    )
