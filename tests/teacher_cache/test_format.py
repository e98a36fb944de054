"""The file: readable by the safetensors library, the same bytes each time, little beside the payload, self-proving."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from cliprd.data.shards import Shard
from cliprd.errors import InputError
from cliprd.teacher_cache.format import proven, read_rows, read_text, write_rows

SHARD = Shard("00003.tar", 0, 0, "ab" * 32)


def halves(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


@st.composite
def contents(draw):
    n, views, dim = draw(st.integers(1, 7)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    counts = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    halves = st.floats(-1, 1, width=16)
    image = draw(hnp.arrays(np.float16, (n, views, dim), elements=halves))
    return image, draw(hnp.arrays(np.float16, (sum(counts), dim), elements=halves)), counts


@settings(max_examples=60, deadline=None)
@given(contents())
def test_round_trip(tmp_path_factory, content):
    image, text, counts = content
    path = tmp_path_factory.mktemp("rows") / "a.safetensors"
    write_rows(path, image, text, counts, SHARD, "id", "new")
    rows = read_rows(path)
    assert np.array_equal(rows.image, image)
    assert rows.captions.tolist() == counts
    ends = np.cumsum(counts)
    for i, (count, end) in enumerate(zip(counts, ends, strict=True)):
        assert np.array_equal(rows.text[i, :count], text[end - count : end])
        assert not rows.text[i, count:].any()
    assert np.array_equal(read_text(path), text)
    plain = load_file(path)
    assert np.array_equal(plain["image"], image)
    assert np.array_equal(plain["text"], text)
    assert plain["caption_offsets"].tolist() == [0, *ends]
    again = path.with_name("b.safetensors")
    write_rows(again, image, text, counts, SHARD, "id", "new")
    assert path.read_bytes() == again.read_bytes()


def test_reading_maps_and_copies_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    write_rows(path, halves(5, 2, 8), halves(15, 8), [3] * 5, SHARD, "id", "new")
    rows = read_rows(path)
    for part in (rows.image, rows.text):
        base = part
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
        assert not part.flags.writeable


@pytest.mark.parametrize(("samples", "views", "dim"), [(1000, 1, 256), (1000, 2, 256), (200, 1, 256), (10_000, 1, 512)])
def test_at_most_one_per_cent_beside_the_payload(tmp_path, samples, views, dim):
    path = tmp_path / "a.safetensors"
    write_rows(path, halves(samples, views, dim), halves(samples, dim), [1] * samples, SHARD, "id" * 32, "new" * 11)
    payload = samples * (views + 1) * dim * 2
    assert payload < path.stat().st_size <= 1.01 * payload


def test_a_file_proves_itself(tmp_path):
    path = tmp_path / "a.safetensors"
    write_rows(path, halves(3, 1, 4), halves(3, 4), [1, 1, 1], SHARD, "id", "new")
    assert proven(path, SHARD, "id") == "new"
    assert proven(path, SHARD, "other") is None
    assert proven(path, Shard("00003.tar", 0, 0, "cd" * 32), "id") is None
    assert proven(tmp_path / "none", SHARD, "id") is None
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert proven(path, SHARD, "id") is None, f"byte {place}"
    for cut in (0, 5, 100, len(data) - 1):
        path.write_bytes(data[:cut])
        assert proven(path, SHARD, "id") is None


def test_what_is_no_such_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    for data in (b"", b"short", b"\xff" * 50, (2).to_bytes(8, "little") + b"[]", (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.safetensors is damaged"):
            read_rows(path)
