"""Differences between two lineages, in data, parameters, teacher and code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cliprd.formatting import flat
from cliprd.lineage.common import short


@dataclass(frozen=True)
class Change:
    """A difference between two lineages.

    Attributes:
        kind: the part of the lineage.
        what: name of the raw shard, parameter (`distill.epochs`), code part, teacher value or task.
        before, after: value or fingerprint; None if it is absent.
    """

    kind: Literal["data", "params", "code", "teacher", "tasks"]
    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.kind}: {self.what} is new{'' if self._opaque else f' ({short(self.after)})'}"
        if self.after is None:
            return f"{self.kind}: {self.what} is gone"
        return f"{self.kind}: {self.what} changed from {short(self.before)} to {short(self.after)}"

    @property
    def _opaque(self) -> bool:
        return self.kind in ("data", "code", "tasks")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The differences between two lineages (or a lineage and the tree of `retrain.wanted`), by kind.

    Empty if both give the same student. `data.path` is ignored, since equal data may be stored elsewhere. Tasks are
    compared if both have them.
    """
    return [
        *_differences("data", _sources(before), _sources(now)),
        *_differences("params", _flat_params(before), _flat_params(now)),
        *_differences("code", before["code_parts"], now["code_parts"]),
        *_differences("teacher", _teacher(before), _teacher(now)),
        *(_differences("tasks", before["tasks"], now["tasks"]) if "tasks" in before and "tasks" in now else ()),
    ]


def _differences(kind: Any, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    names = sorted({*before, *now})
    return [Change(kind, name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _sources(tree: Mapping[str, Any]) -> dict[str, str]:
    return {part["name"]: part["fingerprint"] for part in tree["inputs"]["shards"]["sources"]}


def _flat_params(tree: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in tree["inputs"]["shards"]["params"].items() if name != "path"}
    return dict(flat({"data": data, **tree["inputs"]["cache"]["params"], **tree["params"]}))


def _teacher(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's values without its shards, which are compared as data."""
    teacher = tree["inputs"]["cache"]["inputs"]["teacher"]
    inputs = {name: value for name, value in teacher["inputs"].items() if name != "shards"}
    return dict(flat({**teacher["params"].get("teacher", {}), **inputs}))
