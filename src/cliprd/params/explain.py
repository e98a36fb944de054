"""Validation errors in one line each: key, value, what is allowed."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from cliprd.names import shortened
from cliprd.params.base import Section
from cliprd.params.overrides import Override
from cliprd.params.tree import Params


class Fault(typing.NamedTuple):
    """A validation error: location (keys) and text."""

    location: tuple[str, ...]
    text: str


def blamed(fault: Fault, overrides: Sequence[Override]) -> str:
    """The override that caused the fault: the last one on its key's path."""
    for override in reversed(overrides):
        if all(a == b for a, b in zip(override.path, fault.location, strict=False)):
            return override.shown
    return ", ".join(override.shown for override in overrides)


def explain(item: Any) -> str:
    """One pydantic error as: key path, what is wrong, what is allowed, the nearest right name."""
    unknown = item["type"] == "extra_forbidden"
    own = len(item["loc"]) - unknown  # index of an unknown key, which is shown even if it looks like pydantic's steps
    steps = ("function-", "constrained-", "literal[")
    location = [str(part) for i, part in enumerate(item["loc"]) if i == own or not str(part).startswith(steps)]
    key = shortened(".".join(location), 200) or "(top level)"
    if unknown:
        siblings = sorted(_section_at(location[:-1]).model_fields)
        near = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.5)
        hint = f"did you mean '{'.'.join([*location[:-1], near[0]])}'?" if near else ""
        return f"unknown key '{key}'{'; ' + hint if hint else ''} (allowed here: {', '.join(siblings)})"
    message = item["msg"].removeprefix("Value error, ")
    shown = re.sub(r"(://)[^/@\s]*@", r"\1…@", repr(item["input"]))  # keep possible passwords out of logs
    return f"'{key}' = {shortened(shown)}: {shortened(message, 400)}"


def _section_at(path: Sequence[str]) -> type[Section]:
    section: type[Section] = Params
    for part in path:
        field = section.model_fields.get(part)
        annotation = field.annotation if field else None
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), section)
    return section
