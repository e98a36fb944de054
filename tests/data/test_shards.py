"""Shards: the same samples give the same bytes, come back as they went in, and damage is named."""

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.data.shards import Sample, ShardSet, read_shard, write_shard
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.stages import prepare
from tests.data.pictures import pairs, png, write_tar

samples = st.lists(
    st.builds(
        Sample,
        st.text("abcXYZ019_-", min_size=1, max_size=80),
        st.binary(max_size=2000),
        st.sampled_from(["png", "jpg", "webp"]),
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1), min_size=1).map(
            tuple
        ),
    ),
    max_size=8,
    unique_by=lambda sample: sample.key,
)


@settings(max_examples=40, deadline=None)
@given(samples)
def test_round_trip(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder / "a.tar", found)
    assert list(read_shard(folder / "a.tar")) == found
    write_shard(folder / "b.tar", iter(found))
    assert (folder / "a.tar").read_bytes() == (folder / "b.tar").read_bytes()


def test_tarfile_and_webdataset_read_the_shards(tmp_path):
    import webdataset

    write_shard(tmp_path / "a.tar", [Sample("k", png(), "png", ("one", "two"))])
    with tarfile.open(tmp_path / "a.tar") as tar:
        entry = tar.getmembers()[0]
        assert (entry.name, entry.mtime, entry.uid, entry.uname, entry.mode) == ("k.png", 0, 0, "", 0o644)
    (sample,) = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert (sample["__key__"], sample["png"], sample["txt"]) == ("k", png(), b"one\ntwo")


@pytest.fixture
def packed(tmp_path):
    write_tar(tmp_path / "source/0.tar", pairs(5))
    data = {"path": str(tmp_path / "source"), "samples_per_shard": 2}
    prepare.run(Params.model_validate({"data": data}), {}, tmp_path / "shards")
    return tmp_path / "shards"


def test_a_set_has_the_counts_of_its_index(packed):
    shards = ShardSet.open(packed)
    assert [shard.samples for shard in shards.shards] == [2, 2, 1]
    assert [shard.stem for shard in shards.shards] == ["0-00000", "0-00001", "0-00002"]
    assert shards.samples == 5
    assert [sample.key for shard in shards.shards for sample in shards.read(shard)] == [f"{i:09d}" for i in range(5)]
    assert all(shard.size == (packed / shard.name).stat().st_size for shard in shards.shards)


@pytest.mark.parametrize("name", ["0-00001.tar", "index.json", "rejected.jsonl", "manifest.json"])
def test_a_flipped_byte_anywhere_is_named(packed, name):
    path = packed / name
    if not path.stat().st_size:
        path.write_bytes(b"x")
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        ShardSet.open(packed)


def test_a_missing_shard_is_named(packed):
    (packed / "0-00000.tar").unlink()
    with pytest.raises(InputError, match=r"0-00000\.tar is missing"):
        ShardSet.open(packed)


def test_a_shard_that_changes_after_opening_is_an_error(packed):
    shards = ShardSet.open(packed)
    write_shard(packed / "0-00000.tar", list(read_shard(packed / "0-00002.tar")))
    with pytest.raises(InputError, match="holds 1 samples, expected 2"):
        list(shards.read(shards.shards[0]))


def test_foreign_tars_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no image"):
        list(read_shard(write_tar(tmp_path / "x.tar", [("a.txt", b"text")])))
