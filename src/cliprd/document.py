"""Reads YAML and JSON from users: params.yaml, `--set` and `--input`.

YAML 1.2's core schema, by which DVC reads the same file: `1e-06`, `+1e-3` and `.5e-3` are numbers, `012` is twelve,
and `yes`, `off`, `1_000`, `1:30` and `2024-01-01` are text.
The result is plain JSON: text as keys, finite numbers, 64-bit integers. Anchors, aliases and merge keys (`<<`) work.
Everything else that YAML allows is an error, whose one-line message gives the location.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cliprd.errors import ParamsError
from cliprd.names import one_line, shortened
from cliprd.reading import open_regular

MOST_BYTES = 1 << 20  # of a file
MOST_DEEP = 64  # levels
MOST_NODES = 100_000  # with aliases expanded
INT64 = range(-(2**63), 2**63)
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class DocumentError(ValueError):
    """The text is no valid document; the message is one line, without the file's name."""


class _Loader(yaml.SafeLoader):
    """Composes nodes of the core schema, at most `MOST_DEEP` levels deep."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own, filled below)
    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self._depth > MOST_DEEP:
            raise DocumentError(f"it is nested more than {MOST_DEEP} levels deep{_at(self.peek_event().start_mark)}")  # type: ignore[no-untyped-call]
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type."""

    def represent_str(self, data: str) -> ScalarNode:
        """Use double quotes if a plain scalar would fold line breaks, and a block for a text of many lines."""
        block = data.count("\n") > 3 and data.replace("\n", "").isprintable()
        return self.represent_scalar(f"{_TAG}str", data, style=None if data.isprintable() else "|" if block else '"')


_Dumper.add_representer(str, _Dumper.represent_str)

for _tag, _pattern in (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", _INT),
    ("float", _FLOAT),
    ("merge", re.compile("<<")),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _tag, re.compile(f"^(?:{_pattern.pattern})$"), None)


def read(path: Path) -> Any:
    """The content of a file; None if it is empty.

    Raises:
        ParamsError: it cannot be read, is no regular file, is too large, or is no document.
    """
    try:
        if str(path) == os.devnull:
            return None
        with open_regular(path) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ParamsError(f"{path} cannot be read: {reason}.", "Name another file with --params.") from error
    if len(data) > MOST_BYTES:
        raise ParamsError(f"{path} has more than {MOST_BYTES:,} bytes.", "Is it a parameter file?")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ParamsError(f"{path} is not valid YAML: it is UTF-16.", "Save it as UTF-8.")
    try:
        return parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ParamsError(
            f"{path} is not valid YAML: byte 0x{data[error.start]:02x} in line {line} is not UTF-8.",
            "Save it as UTF-8.",
        ) from error
    except DocumentError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}.", "Correct the file.") from error


def parse(text: str) -> Any:
    """The document in `text`, YAML or JSON; None if it is empty.

    Raises:
        DocumentError: it is no valid document, or has values that JSON cannot represent.
    """
    if any("\udc80" <= character <= "\udcff" for character in text):  # Python's representation of such a byte
        raise DocumentError("it has bytes that are not UTF-8, which parameters cannot hold: rename the file")
    loader = _Loader("")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Plain().of(node, ())
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"{one_line(reason)}{_at(error.problem_mark)}") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise DocumentError(one_line(str(error).splitlines()[0])) from error
    except DocumentError:
        raise
    except (ValueError, OverflowError) as error:  # PyYAML's own, of "\\UFFFFFFFF"
        raise DocumentError("an escape in a text names no character") from error
    finally:
        loader.dispose()


def dump(tree: Any, **options: Any) -> str:
    """A plain tree as YAML that `parse` and readers of YAML 1.1 read back unchanged; options as of `yaml.dump`."""
    text: str = yaml.dump(tree, Dumper=_Dumper, allow_unicode=True, **options)
    return text


class _Plain:
    """Converts nodes to plain values; counts them with aliases expanded."""

    def __init__(self) -> None:
        self._nodes = 0
        self._open: set[int] = set()  # nodes being converted, to detect cycles

    def of(self, node: Node, path: tuple[str, ...]) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise DocumentError(f"with its aliases it has more than {MOST_NODES:,} values")
        if id(node) in self._open:
            raise DocumentError(f"{_key(path)} contains itself by an alias{_at(node.start_mark)}")
        if len(path) > MOST_DEEP:
            raise DocumentError(f"with its aliases it is nested more than {MOST_DEEP} levels deep")
        if isinstance(node, ScalarNode):
            return _scalar(node, path)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            raise DocumentError(
                f"{_key(path)} has the tag {_tag_name(node)}, which is not allowed{_at(node.start_mark)}"
            )
        self._open.add(id(node))
        if isinstance(node, MappingNode):
            value: Any = self._mapping(node, path)
        else:
            assert isinstance(node, SequenceNode)
            value = [self.of(item, (*path, str(i))) for i, item in enumerate(node.value)]
        self._open.discard(id(node))
        return value

    def _mapping(self, node: MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = _name(key, path)
            if name in lines:
                both = (lines[name], key.start_mark.line + 1)
                where = f"lines {both[0]} and {both[1]}" if both[0] != both[1] else f"line {both[0]}"
                raise DocumentError(f"{_key((*path, name))} is given twice, in {where}")
            lines[name] = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged = self._merged(value, path)
            else:
                own[name] = self.of(value, (*path, name))
        return {**merged, **own}

    def _merged(self, node: Node, path: tuple[str, ...]) -> dict[str, Any]:
        """The keys merged by `<<`; of several mappings, the first that has a key counts."""
        content = self.of(node, (*path, "<<"))
        parts = content if isinstance(content, list) else [content]
        if not all(isinstance(part, dict) for part in parts):
            raise DocumentError(f"'<<' needs a mapping, or a list of mappings{_at(node.start_mark)}")
        return {key: value for part in reversed(parts) for key, value in part.items()}


def _name(key: Node, path: tuple[str, ...]) -> str:
    if not isinstance(key, ScalarNode):
        raise DocumentError(f"a key in {_key(path)} is a mapping or a list, not a name{_at(key.start_mark)}")
    if key.tag == _MERGE:
        return "<<"
    if key.tag != f"{_TAG}str":
        kind = key.tag.removeprefix(_TAG)
        shown, where = shortened(key.value), _at(key.start_mark)
        raise DocumentError(f"the key '{shown}' in {_key(path)} is {kind}, not text: write it in quotes{where}")
    return _text(key.value, key, (*path, key.value))


def _scalar(node: ScalarNode, path: tuple[str, ...]) -> Any:
    kind, value = node.tag.removeprefix(_TAG), node.value
    makers: Mapping[str, Callable[[], Any]] = {
        "null": lambda: None,
        "bool": lambda: {"true": True, "false": False}[value.lower()],
        "int": lambda: _integer(value),
        "float": lambda: _float(value),
        "str": lambda: _text(value, node, path),
        "merge": lambda: value,
    }
    if kind not in makers:
        raise DocumentError(f"{_key(path)} has the tag {_tag_name(node)}, which is not allowed{_at(node.start_mark)}")
    try:
        return makers[kind]()
    except DocumentError as error:
        if kind == "str":
            raise
        raise DocumentError(f"{_key(path)} = {shortened(value)}: {error}{_at(node.start_mark)}") from error
    except (KeyError, ValueError) as error:
        raise DocumentError(f"{_key(path)} = {shortened(value)} is no {kind}{_at(node.start_mark)}") from error


def _integer(value: str) -> int:
    if len(value) > 30:
        raise DocumentError(f"an integer of {len(value):,} digits; they are of 64 bits")
    number = int(value, 0) if value.startswith(("0o", "0x")) else int(value)
    if number not in INT64:
        raise DocumentError("an integer is of 64 bits; write larger numbers with an exponent")
    return number


def _float(value: str) -> float:
    if not _FLOAT.fullmatch(value):
        raise ValueError
    if value.lower().endswith(("inf", "nan")) or not math.isfinite(number := float(value)):
        raise DocumentError("a finite number is needed")
    return number


def _text(value: str, node: Node, path: tuple[str, ...]) -> str:
    if fault := _unusable(value):
        raise DocumentError(f"{_key(path)} {fault}{_at(node.start_mark)}")
    return value


def _unusable(text: str) -> str:
    if "\0" in text:
        return "has a character U+0000"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "is not valid Unicode (a lone surrogate)"
    return ""


def check(tree: Any) -> None:
    """Check that a tree from another source (Kubeflow, a caller in Python) has only values that a document can have.

    Raises:
        DocumentError: it has not; the message names the key.
    """
    waiting: list[tuple[Any, tuple[str, ...]]] = [(tree, ())]
    seen = 0
    while waiting:
        value, path = waiting.pop()
        seen += 1
        if seen > MOST_NODES or len(path) > MOST_DEEP:
            raise DocumentError(f"it has more than {MOST_NODES:,} values, or more than {MOST_DEEP} levels")
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise DocumentError(f"the key {shortened(repr(key))} in {_key(path)} is no text")
                if fault := _unusable(key):
                    raise DocumentError(f"a key in {_key(path)} {fault}")
            waiting += [(item, (*path, key)) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(item, (*path, str(i))) for i, item in enumerate(value)]
        elif isinstance(value, str):
            if fault := _unusable(value):
                raise DocumentError(f"{_key(path)} {fault}")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise DocumentError(f"{_key(path)} = {value}: a finite number is needed")
        elif isinstance(value, int):
            if value not in INT64:
                raise DocumentError(f"{_key(path)}: an integer is of 64 bits")
        elif value is not None:
            raise DocumentError(f"{_key(path)} is a {type(value).__name__}, which JSON does not have")


def _key(path: tuple[str, ...]) -> str:
    return f"'{shortened('.'.join(path))}'" if path else "the value"


def _tag_name(node: Node) -> str:
    return shortened(node.tag.replace(_TAG, "!!"))


def _at(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
