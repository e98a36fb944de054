"""What people write as YAML or JSON: YAML 1.2, plain JSON out, and one line for everything else."""

import json
import os
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd import document
from cliprd.document import DocumentError
from cliprd.errors import ParamsError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
STAIRS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-06", 1e-6), ("1e6", 1e6), ("+1e-3", 1e-3), (".5e-3", 5e-4), ("1.", 1.0), ("-.5", -0.5), ("1E+2", 100.0),
        ("012", 12), ("+7", 7), ("0x1F", 31), ("0o17", 15), ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1_000", "1_000"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("yes", "yes"), ("off", "off"), ("N", "N"),
        ("true", True), ("False", False), ("~", None), ("", None), ("Null", None), ("'5'", "5"), ('"\\t"', "\t"),
        ("\\t", "\\t"), (";", ";"), ("=", "="), ("<<", "<<"), ("!!str 5", "5"), ("!!float 1", 1.0), ("nan", "nan"),
        ('{"lr": 1e-06, "n": [1, 2]}', {"lr": 1e-6, "n": [1, 2]}), ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: {<<: {x: 1, y: 1}, y: 2}", {"a": {"x": 1, "y": 2}}), ("{<<: [{x: 1}, {x: 2, y: 3}]}", {"x": 1, "y": 3}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text, value):
    found = document.parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nb: 2\na: 3", ["'a'", "twice", "lines 1 and 3"]),
        ("x: {a: 1, a: 2}", ["'x.a'", "twice", "line 1"]),
        ("a:\n  <<: {x: 1}\n  <<: {y: 1}", ["<<", "lines 2 and 3"]),
        ("&a [*a]", ["contains itself", "line 1"]),
        ("a: &a {b: *a}", ["'a.b'", "contains itself"]),
        (BOMB, ["aliases", "100,000"]),
        (STAIRS, ["aliases", "deep"]),
        ("[" * 10_000, ["64 levels"]),
        ("{a: " * 10_000, ["64 levels"]),
        ("- " * 10_000, ["64 levels"]),
        ("{1: x}", ["key '1'", "int", "quotes"]),
        ("a: {2024: x}", ["key '2024'", "'a'"]),
        ("{1.5: x}", ["float"]),
        ("{~: x}", ["null"]),
        ("{true: x}", ["bool"]),
        ("{!!binary aGk=: x}", ["binary"]),
        ("{!!timestamp 2001-01-01: x}", ["timestamp"]),
        ("? [a]\n: b", ["key", "list"]),
        ("9" * 5000, ["5,000 digits"]),
        ("a: 9223372036854775808", ["'a'", "64 bits"]),
        ("1e400", ["finite"]),
        ("a: [1, [.inf]]", ["'a.1.0'", "finite"]),
        (".NaN", ["finite"]),
        ("!!float .nan", ["finite"]),
        ("!!int x", ["no int"]),
        ("!!python/object/apply:os.system [id]", ["!!python/object", "not allowed"]),
        ("!mine x", ["!mine"]),
        ("a: !!binary aGk=", ["!!binary"]),
        ("!!set {a}", ["!!set"]),
        ('"\\0"', ["U+0000"]),
        ('"\\ud800"', ["surrogate"]),
        ("/data/\udcff.tar", ["not UTF-8", "rename"]),
        ('{"\\ud800": 1}', ["surrogate"]),
        ('"\\UFFFFFFFF"', ["escape"]),
        ("a\n---\nb", ["another document"]),
        ("\ta: 1", ["\\t"]),
        ("a: [", ["line 1"]),
        ("a: b: c", ["line 1"]),
        ("*x", ["undefined alias"]),
        ("%YAML 3.0\n--- a", ["version"]),
        ("a: \x07", ["7"]),
    ],
)
def test_unsupported_yaml_is_a_one_line_error(text, parts):
    begun = time.monotonic()
    with pytest.raises(DocumentError) as caught:
        document.parse(text)
    assert time.monotonic() - begun < 20
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a: 1".encode("utf-16"), ["UTF-16", "UTF-8"]),
        (b"a: 1\nb: \xff", ["0xff", "line 2"]),
        (b"a: \0", ["not valid YAML"]),
        (b"a" * (document.MOST_BYTES + 1), ["1,048,576 bytes"]),
        (b"\x89PNG\r\n\x1a\n", ["0x89"]),
    ],
)
def test_invalid_files_are_reported(tmp_path, content, parts):
    file = tmp_path / "p.yaml"
    file.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        document.read(file)
    for part in [str(file), *parts]:
        assert part in str(caught.value)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (
        tmp_path / "pipe",
        tmp_path,
        tmp_path / "loop",
        tmp_path / "none",
        tmp_path / ("x" * 300),
        tmp_path / "\0",
    ):
        with pytest.raises(ParamsError, match="cannot be read"):
            document.read(path)
    assert document.read(type(tmp_path)(os.devnull)) is None


FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_dump_and_parse_round_trip(tree):
    try:
        document.check(tree)
    except DocumentError:
        return
    assert document.parse(document.dump(tree)) == tree


@pytest.mark.parametrize("text", ["1e3", "0o17", "012", "yes", "~", "1_000", "<<", "2024-01-01", "1:30", "=", ""])
def test_text_that_looks_like_another_type_stays_text(text):
    written = document.dump({"a": text})
    assert document.parse(written) == {"a": text}
    assert yaml.safe_load(written) == {"a": text}


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab0.e-+:{}[],&*!<>|%\"'#\n\t ~?"), max_size=30))
def test_any_text_is_plain_json_or_one_line(text):
    try:
        found = document.parse(text)
    except DocumentError as error:
        assert str(error).isprintable()
    else:
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "tree",
    [{"a": float("nan")}, {"a": [[float("inf")]]}, {1: 2}, {"a": {None: 1}}, {"a": {1, 2}}, {"a": b"x"}, {"a": "\0"}],
)
def test_trees_from_other_sources_are_checked(tree):
    with pytest.raises(DocumentError):
        document.check(tree)


def test_a_cyclic_tree_is_refused():
    tree: dict = {}
    tree["a"] = tree
    with pytest.raises(DocumentError, match="levels"):
        document.check(tree)
