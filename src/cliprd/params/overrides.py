"""Parses `--set key=value`, with the value in the parameter's type."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    TypeAdapter,
    ValidationError,
)

from cliprd import document
from cliprd.document import DocumentError
from cliprd.errors import ParamsError
from cliprd.names import shortened
from cliprd.params.base import NULLS, STRICT, Section
from cliprd.params.tree import Params


@dataclass(frozen=True)
class Override:
    """One `a.b=c`."""

    path: tuple[str, ...]
    value: Any
    shown: str

    @classmethod
    def of(cls, item: str, shown: str) -> Override:
        """Parse `a.b=c`; `shown` is how messages quote it."""
        key, equals, text = item.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ParamsError(f"{shown}: expected KEY.SUBKEY=VALUE.", "For example --set distill.epochs=3")
        try:
            return cls(path, _value(text, _type_at(path)), shown)
        except DocumentError as error:
            key = shortened(".".join(path))
            raise ParamsError(f"{shown}: the value of '{key}' is not valid: {error}.") from error

    def applied(self, tree: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
        """`tree` with the value set; intermediate nodes that are no mappings are replaced."""
        part = self.path[depth]
        if depth + 1 == len(self.path) or depth >= document.MOST_DEEP:
            return {**tree, part: self.value}
        child = tree.get(part)
        return {**tree, part: self.applied(child if isinstance(child, Mapping) else {}, depth + 1)}


def _value(text: str, kind: Any) -> Any:
    """The value of `text` for a key of this type: YAML, or the text itself if the key takes text and it is neither
    quoted nor null.

    Raises:
        DocumentError: it is no YAML.
    """
    takes, bare = _takes(kind), text.strip(" ")
    if not bare:
        return next((value for value in (text, "", None) if takes(value)), "")
    structured = bare[0] in "{[" and any(_is_structure(option) for option in typing.get_args(kind))
    literal = bare[0] not in "'\"" and bare not in NULLS and not structured
    return bare if literal and takes(bare) else document.parse(text)


def _is_structure(kind: Any) -> bool:
    return typing.get_origin(kind) is not None or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _takes(kind: Any) -> Callable[[Any], bool]:
    if kind is None:
        return lambda value: False
    adapter = TypeAdapter(kind, config=None if isinstance(kind, type) and issubclass(kind, BaseModel) else STRICT)

    def takes(value: Any) -> bool:
        try:
            adapter.validate_json(json.dumps(value))
        except ValidationError:
            return False
        return True

    return takes


def _type_at(path: Sequence[str]) -> Any:
    """The type of the key's value; None if there is no such key or it takes any value."""
    kind: Any = Params
    for part in path:
        options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        mapping = next((o for o in options if typing.get_origin(o) is dict), None)
        if section is not None and part in section.model_fields:
            field = section.model_fields[part]
            kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        elif mapping is not None:
            kind = typing.get_args(mapping)[1]
        else:
            return None
        if typing.get_origin(kind) is Annotated and len(path) > 1 and isinstance(part, str) and part != path[-1]:
            kind = typing.get_args(kind)[0]
    return None if kind is Any else kind
