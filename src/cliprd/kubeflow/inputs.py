"""A pipeline's inputs as somebody gives them: checked before anything is sent, not after an hour on a cluster."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from cliprd import document
from cliprd.document import DocumentError
from cliprd.errors import ParamsError
from cliprd.kubeflow.values import whole_numbers
from cliprd.names import shortened
from cliprd.params import Params, check_runs, parse_method, validate

KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "STRUCT": (dict,),
    "LIST": (list,),
}


def parse(items: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` items as name → value; values are YAML."""
    given: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ParamsError(
                f"--input {shortened(item, 100)}: expected NAME=VALUE.", "For example --input method=vrd-exp"
            )
        try:
            given[name.strip()] = document.parse(text) if text.strip() else ""
        except DocumentError as error:
            raise ParamsError(f"--input {shortened(item, 100)}: the value is not valid YAML: {error}.") from error
    return given


def check(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as KFP carries them.

    Args:
        given: name → value.
        definitions: the pipeline's own: `root.inputDefinitions.parameters` of its YAML.

    Raises:
        ParamsError: an unknown name, a missing input, or a value that a step would refuse.
    """
    for name in given:
        if name not in definitions:
            near = difflib.get_close_matches(name, list(definitions), n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ParamsError(
                f"--input {shortened(name, 100)}: the pipeline has no such input.{hint}",
                f"It has {_names(definitions)}.",
            )
    if missing := [name for name, value in definitions.items() if not value.get("isOptional") and name not in given]:
        raise ParamsError(f"Input '{missing[0]}' has no default.", f"Give --input {missing[0]}=VALUE")
    return {
        name: _checked(name, _whole(value, definitions[name]), definitions[name]["parameterType"])
        for name, value in given.items()
    }


def _whole(value: Any, definition: Mapping[str, Any]) -> Any:
    """A section of which some keys are given, with the pipeline's own defaults for the others."""
    default = definition.get("defaultValue")
    if isinstance(value, dict) and isinstance(default, Mapping):
        return {**whole_numbers(default), **value}
    return value


def _checked(name: str, value: Any, kind: str) -> Any:
    _right_kind(name, value, kind)
    if name in Params.model_fields and kind == "STRUCT":
        return _section(name, value)
    if name == "method":
        _method(value, "method")
    if name == "seed":
        validate({"distill": {"seed": value}}, where="--input seed")
    if name == "runs":
        check_runs(value)
    if name in ("store", "cache_parts"):
        validate({"kubernetes": {name: value}}, where=f"--input {name}")
    return value


def _right_kind(name: str, value: Any, kind: str) -> None:
    allowed: tuple[type, ...] = KINDS.get(kind, (object,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed and object not in allowed):
        raise ParamsError(
            f"--input {name}={shortened(repr(value), 100)}: expected {_word(kind)}.",
            f"For example --input {_example(name, kind)}",
        )


def _section(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Without nulls, which KFP cannot carry."""
    bare: dict[str, Any] = _without_nulls(value)
    where = f"--input {name}"
    if validate({name: value}, where=where) != validate({name: bare}, where=where):
        raise ParamsError(f"{where}: a key is null whose default is not, and KFP carries no null.", "Leave it out.")
    return bare


def _method(value: str, name: str) -> None:
    try:
        parse_method(value)
    except ValueError as error:
        raise ParamsError(f"--input {name}: {error}.") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _names(definitions: Mapping[str, Any]) -> str:
    return ", ".join(sorted(definitions))


def _word(kind: str) -> str:
    words = {
        "STRING": "text", "NUMBER_INTEGER": "a whole number", "NUMBER_DOUBLE": "a number", "BOOLEAN": "true or false",
        "STRUCT": "a mapping", "LIST": "a list",
    }  # fmt: skip
    return words.get(kind, kind)


def _example(name: str, kind: str) -> str:
    shown = {"STRING": "vrd-exp", "NUMBER_INTEGER": "1", "NUMBER_DOUBLE": "0.5", "BOOLEAN": "true", "LIST": "[1, 2]"}
    return f"{name}={shown[kind]}" if kind in shown else f"'{name}={{epochs: 3}}'"
