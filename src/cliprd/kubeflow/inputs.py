"""A pipeline's inputs from the command line: checked before anything is sent, not after an hour on a cluster."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from cliprd import document
from cliprd.document import DocumentError
from cliprd.errors import ParamsError
from cliprd.kubeflow.values import whole_numbers
from cliprd.names import shortened
from cliprd.params import Params, check_registered, check_runs, parse_method, validate

# KFP's type → Python's, its name in messages, and an example of a value.
KINDS: dict[str, tuple[type | tuple[type, ...], str, str]] = {
    "STRING": (str, "text", "vrd-exp"),
    "NUMBER_INTEGER": (int, "a whole number", "1"),
    "NUMBER_DOUBLE": ((int, float), "a number", "0.5"),
    "BOOLEAN": (bool, "true or false", "true"),
    "STRUCT": (dict, "a mapping", "'{epochs: 3}'"),
    "LIST": (list, "a list", "[1, 2]"),
}


def parse_inputs(items: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` items as name → value; values are YAML."""
    values: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ParamsError(
                f"--input {shortened(item, 100)}: expected NAME=VALUE.", "For example --input method=vrd-exp"
            )
        try:
            values[name.strip()] = document.parse(text) if text.strip() else ""
        except DocumentError as error:
            raise ParamsError(f"--input {shortened(item, 100)}: the value is not valid YAML: {error}.") from error
    return values


def check_inputs(values: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as KFP carries them.

    Args:
        values: name → value.
        definitions: the pipeline's own: `root.inputDefinitions.parameters` of its YAML.

    Raises:
        ParamsError: an unknown name, a missing input, or a value that a step would refuse.
    """
    for name in values:
        if name not in definitions:
            near = difflib.get_close_matches(name, list(definitions), n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ParamsError(
                f"--input {shortened(name, 100)}: the pipeline has no such input.{hint}",
                f"It has {', '.join(sorted(definitions))}.",
            )
    if missing := [name for name, value in definitions.items() if not value.get("isOptional") and name not in values]:
        raise ParamsError(f"Input '{missing[0]}' has no default.", f"Give --input {missing[0]}=VALUE")
    return {name: _checked(name, value, definitions[name]) for name, value in values.items()}


def _checked(name: str, value: Any, definition: Mapping[str, Any]) -> Any:
    where, kind = f"--input {name}", definition["parameterType"]
    python, word, example = KINDS.get(kind, (object, kind, "VALUE"))
    if not isinstance(value, python) or (isinstance(value, bool) and python not in (bool, object)):
        raise ParamsError(
            f"{where}={shortened(repr(value), 100)}: expected {word}.", f"For example --input {name}={example}"
        )
    if isinstance(value, dict) and isinstance(default := definition.get("defaultValue"), Mapping):
        value = {**whole_numbers(default), **value}  # a section of which some keys are given
    if name in Params.model_fields and kind == "STRUCT":
        return _section(where, name, value)
    if name == "method":
        try:
            parse_method(value)
        except ValueError as error:
            raise ParamsError(f"{where}: {error}.") from error
    if name == "seed":
        validate({"distill": {"seed": value}}, where=where)
    if name == "runs":
        check_runs(value)
    if name in ("store", "cache_parts"):
        validate({"kubernetes": {name: value}}, where=where)
    return value


def _section(where: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Without nulls, which KFP cannot carry."""
    bare: dict[str, Any] = _without_nulls(value)
    params = validate({name: bare}, where=where)
    check_registered(params, where=where)
    if validate({name: value}, where=where) != params:
        raise ParamsError(f"{where}: a key is null whose default is not, and KFP carries no null.", "Leave it out.")
    return bare


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
