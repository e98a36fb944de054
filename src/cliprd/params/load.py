"""Loads and validates the parameter tree: keys, types and ranges are checked before any work starts.

Stages declare sections as their DVC `params:`, so that a changed key reruns only the stages that read it.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from cliprd import document, plugins
from cliprd.document import DocumentError
from cliprd.errors import ParamsError
from cliprd.names import shortened
from cliprd.params.data import CSV_KEYS
from cliprd.params.distill import parse_method
from cliprd.params.explain import Fault, blamed, explain
from cliprd.params.overrides import Override
from cliprd.params.tree import Params

MOST_FAULTS = 5  # reported of one file


def load(path: Path, overrides: Sequence[str] = (), *, written: Mapping[str, str] | None = None) -> Params:
    """Read a params file, apply `a.b=c` overrides, validate.

    A value is YAML, and text where the key takes text: `tracking.uri=` is empty text, `data.csv_separator=,` a comma.
    An empty value is null where the key takes no empty text.

    Args:
        written: override → text that messages quote; default: `--set <override>`.

    Raises:
        ParamsError: the file is missing or no YAML; a key is unknown, of a wrong type or out of range. The message
            gives the file or the override, the key's path, what is allowed and the nearest right name. Or a teacher or
            a loss term is not registered.
    """
    tree = document.read(path)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} holds a {type(tree).__name__}, not a tree of parameters.", "Correct the file.")
    written = written or {}
    parsed = [Override.of(item, written.get(item, f"--set {shortened(item, 100)}")) for item in overrides]
    merged = tree
    for override in parsed:
        merged = override.applied(merged)
    params, faults = _validated(merged)
    remedy = ""
    if params is not None:
        for line in without_effect(merged, params):
            print(f"cliprd: {line}", file=sys.stderr)
        faults, remedy = _unregistered(params)
        if not faults:
            return params
        of_file = {fault for fault in faults if not any(o.path == fault.location[: len(o.path)] for o in parsed)}
    else:
        of_file = set(_validated(tree)[1]) if parsed else set(faults)
    messages = [(blamed(fault, parsed) if fault not in of_file else str(path), fault.text) for fault in faults]
    origins = dict.fromkeys(origin for origin, _ in messages)
    raise ParamsError(
        "; ".join(f"{origin}: {_several([text for owner, text in messages if owner == origin])}" for origin in origins)
        + ".",
        remedy,
    )


def _unregistered(params: Params) -> tuple[list[Fault], str]:
    """Names that no registry has, and the remedy. Not part of the schema: a step that uses no plug-in needs none."""
    faults, remedy = [], ""
    teacher = params.teacher.name
    if not params.teacher.of_open_clip and teacher not in plugins.teachers:
        unknown = plugins.teachers.unknown(teacher)
        faults.append(Fault(("teacher", "name"), "teacher.name: " + unknown.problem.rstrip(".")))
        remedy = f"Or give open_clip:<architecture>:<pretrained tag or file>. {unknown.remedy}"
    for name in params.distill.weights.of_terms():
        if name not in plugins.terms:
            unknown = plugins.terms.unknown(name)
            text = "distill.weights.extra: " + unknown.problem.rstrip(".")
            faults.append(Fault(("distill", "weights", "extra", name), text))
            remedy = remedy or unknown.remedy
    return faults, remedy


def check_registered(params: Params, *, where: str) -> None:
    """Refuse a teacher or a loss term that is not registered on this machine; `where` names the origin in messages.

    Raises:
        ParamsError: it names them.
    """
    faults, remedy = _unregistered(params)
    if faults:
        raise ParamsError(f"{where}: {_several([fault.text for fault in faults])}.", remedy)


def without_effect(tree: Mapping[str, Any], params: Params) -> list[str]:
    """A line for each key that `tree` sets to a non-default value although it has no effect."""
    teacher = params.teacher
    method, kind, nodes = params.distill.method, params.data.kind, params.kubernetes.nodes
    reasons = {
        **({f"data.csv_{key}": f"data.kind = {kind} reads no table" for key in CSV_KEYS} if kind != "csv" else {}),
        **{
            f"teacher.{key}": f"teacher.name = {teacher.name}"
            for key in ("aligned", "settings")
            if teacher.of_open_clip or key != teacher.own_section
        },
        **({"distill.scale_mode": f"distill.method = {method} decides"} if parse_method(method)[1] else {}),
        **({"distill.max_scale": "scale_mode exp clamps by itself"} if params.distill.scale_mode == "exp" else {}),
        **({"kubernetes.engine": "kubernetes.nodes = 1 needs none"} if nodes == 1 else {}),
    }
    plain = [item.model_dump(mode="json") for item in (Params(), params)]
    lines = []
    for key, reason in reasons.items():
        section, name = key.split(".")
        value = (tree.get(section) or {}).get(name)
        unused = plain[key == "distill.scale_mode"][section][name]
        differs = value if not isinstance(value, Mapping) else {k: v for k, v in value.items() if v != unused.get(k)}
        if differs not in (None, {}, unused):
            lines.append(f"{key} = {shortened(str(differs))} has no effect: {reason}.")
    return lines


def validate(tree: Mapping[str, Any], *, where: str) -> Params:
    """Check a plain tree; `where` names its origin in messages."""
    params, faults = _validated(tree)
    if params is None:
        raise ParamsError(f"{where}: {_several([fault.text for fault in faults])}.")
    return params


def _validated(tree: Mapping[str, Any]) -> tuple[Params | None, list[Fault]]:
    try:
        document.check(tree)
        return Params.model_validate_json(json.dumps(tree)), []  # JSON: strict, yet lists become tuples
    except DocumentError as error:
        return None, [Fault((), str(error))]
    except ValidationError as error:
        return None, [Fault(tuple(map(str, item["loc"])), explain(item)) for item in error.errors()]


def _several(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MOST_FAULTS} more" if len(texts) > MOST_FAULTS else ""
    return "; ".join(texts[:MOST_FAULTS]) + more


def check_runs(runs: Sequence[Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Methods and seeds of a pipeline's `runs`, `{"method": ..., "seed": ...}` each.

    Raises:
        ParamsError: `runs` is empty, an item is no such mapping or is repeated, or they are not all methods with all
            seeds, which `compare` needs.
    """
    example = "For example [{method: clip_kd, seed: 0}, {method: clip_rd-exp, seed: 0}]"
    if not runs:
        raise ParamsError("runs is empty.", example)
    pairs: list[tuple[str, int]] = []
    for run in runs:
        if not isinstance(run, Mapping) or set(run) != {"method", "seed"}:
            raise ParamsError(f"runs: {run!r} is no run.", f"Each is a method and a seed. {example}")
        distill = validate({"distill": dict(run)}, where="runs").distill
        if (distill.method, distill.seed) in pairs:
            raise ParamsError(f"runs: {run!r} is listed twice.", "Name each method and seed once.")
        pairs.append((distill.method, distill.seed))
    methods, seeds = (tuple(dict.fromkeys(column)) for column in zip(*pairs, strict=True))
    if missing := [(method, seed) for method in methods for seed in seeds if (method, seed) not in pairs]:
        raise ParamsError(
            f"runs: {missing[0][0]} with seed {missing[0][1]} is missing.", "Train every method with every seed."
        )
    return typing.cast(tuple[str, ...], methods), typing.cast(tuple[int, ...], seeds)


def dump(tree: Params) -> str:
    """The resolved tree as YAML, with every key, in the order of the schema."""
    return document.dump(tree.model_dump(mode="json"), sort_keys=False)


def schema() -> str:
    """JSON schema of params.yaml, for editors (docs/params.schema.json)."""
    return json.dumps(Params.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
