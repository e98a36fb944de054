"""Manifests: what a finished folder says, and every way it can be wrong."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd import files
from cliprd.artifact import manifest
from cliprd.errors import InputError
from cliprd.files import atomic_write


def make(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.bin").write_bytes(b"alpha")
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "b.txt").write_text("beta")
    values = {"stage": "prepare", "params": {"x": (1, 2)}, "inputs": {"src": "00"}, "facts": {"samples": 2}}
    return manifest.write(folder, **{**values, **changes})


def test_lists_every_file_with_size_and_sha256(tmp_path):
    (tmp_path / "volatile").mkdir()
    (tmp_path / "volatile" / "time.json").write_text("1")
    (tmp_path / ".hidden").write_text("x")
    written = make(tmp_path)
    assert set(written.files) == {"a.bin", "sub/b.txt"}
    assert written.files["a.bin"] == {
        "size": 5,
        "sha256": "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8",
    }
    assert written.params == {"x": [1, 2]}
    assert manifest.verify(tmp_path, stage="prepare") == written


def test_equal_folders_have_equal_bytes_and_fingerprints(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert (tmp_path / "one" / manifest.NAME).read_bytes() == (tmp_path / "two" / manifest.NAME).read_bytes()
    assert make(tmp_path / "two", params={"x": 3}).fingerprint != one.fingerprint


@pytest.mark.parametrize("target", ["a.bin", "sub/b.txt", "manifest.json"])
def test_every_flipped_byte_is_found_and_named(tmp_path, target):
    make(tmp_path)
    path = tmp_path / target
    original = path.read_bytes()
    for position in range(len(original)):
        flipped = bytearray(original)
        flipped[position] ^= 0x20  # swaps the case of letters: JSON often stays valid
        path.write_bytes(flipped)
        if target == "manifest.json" and json_equal(original, bytes(flipped)):
            continue  # white space between tokens
        with pytest.raises(InputError) as caught:
            manifest.verify(tmp_path)
        assert str(tmp_path) in str(caught.value)
        if target != "manifest.json":
            assert target in str(caught.value)


def json_equal(one: bytes, two: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(two)
    except ValueError:
        return False


def test_missing_truncated_and_foreign_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        manifest.read(tmp_path / "none")
    with pytest.raises(InputError, match="never finished"):
        manifest.read(tmp_path)
    make(tmp_path)
    with pytest.raises(InputError, match=r"made by stage 'prepare'.*'cache' is needed"):
        manifest.verify(tmp_path, stage="cache")
    (tmp_path / "a.bin").write_bytes(b"alph")
    with pytest.raises(InputError, match="4 bytes, expected 5"):
        manifest.verify(tmp_path)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(InputError, match=r"a\.bin is missing"):
        manifest.verify(tmp_path)


def test_other_schema_is_refused(tmp_path):
    make(tmp_path)
    raw = json.loads((tmp_path / manifest.NAME).read_text())
    raw.pop("digest")
    raw["schema"] = 99
    files.write_json(tmp_path / manifest.NAME, {**raw, "digest": files.digest(raw)})
    with pytest.raises(InputError, match="schema 99"):
        manifest.read(tmp_path)


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    class Unlucky(Exception):
        pass

    with pytest.raises(Unlucky), atomic_write(path) as file:
        file.write(b"half")
        raise Unlucky
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_digest_ignores_key_order_only(value):
    assert files.digest(value) == files.digest(dict(reversed(value.items())))
    assert files.digest(value) != files.digest({**value, "\x00extra": 1})


def test_nan_is_refused_rather_than_written_as_bad_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()
