"""A cache embedded in parts is the one embedded in one piece; parts that do not make it are refused by name."""

import shutil

import numpy as np
import pytest

from cliprd.data.shards import ShardSet
from cliprd.errors import InputError, ParamsError
from cliprd.stages import cache, merge
from cliprd.teacher_cache import TeacherCache
from tests.teacher_cache import rooms


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Five shards, embedded whole and in three parts."""
    folder = tmp_path_factory.mktemp("room")
    params = rooms.make(folder)
    cache.run(params, inputs(folder), folder / "whole")
    for number in range(3):
        cache.run(params, inputs(folder), folder / "parts" / str(number), part=f"{number}/3")
    return folder, params


@pytest.fixture
def copy(room, tmp_path):
    shutil.copytree(room[0], tmp_path / "room")
    return tmp_path / "room", room[1]


def inputs(folder):
    return {"shards": folder / "shards", "teacher": folder / "teacher"}


def merged(folder, params):
    return merge.run(params, {"shards": folder / "shards", "parts": folder / "parts"}, folder / "merged")


def test_the_merged_cache_is_the_whole_one(room):
    folder, params = room
    made = merged(folder, params)
    shards = ShardSet.open(folder / "shards")
    whole, joined = (TeacherCache.open(folder / n, shards, params.augmentation) for n in ("whole", "merged"))
    assert made.facts == cache.run(params, inputs(folder), folder / "whole").facts
    for shard in shards.shards:
        a, b = whole.read(shard), joined.read(shard)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.captions, b.captions)
        np.testing.assert_allclose(a.text, b.text, atol=2e-3)  # batched with other captions: float16's last bits
    assert merged(folder, params).fingerprint == made.fingerprint  # the second time there is nothing to do


def test_parts_share_out_the_shards(room):
    shards = ShardSet.open(room[0] / "shards")
    for parts in range(1, 6):
        held = [shard.name for number in range(parts) for shard in shards.part(number, parts).shards]
        assert held == [shard.name for shard in shards.shards]


@pytest.mark.parametrize("part", ["3/3", "0/6", "1", "a/b", "0/0", "-1/3"])
def test_a_part_that_is_none_is_refused(room, tmp_path, part):
    with pytest.raises(ParamsError, match="no such part"):
        cache.run(room[1], inputs(room[0]), tmp_path / "out", part=part)


def test_a_missing_part_is_named_by_its_shards(copy):
    folder, params = copy
    shutil.rmtree(folder / "parts" / "1")
    with pytest.raises(InputError, match=r"2 shards are in no part: 0-00001.tar, 0-00002.tar"):
        merged(folder, params)
    shutil.rmtree(folder / "parts" / "0")
    shutil.rmtree(folder / "parts" / "2")
    with pytest.raises(InputError, match="holds no part"):
        merged(folder, params)


def test_a_part_of_other_making_is_refused(copy):
    folder, params = copy
    other = params.model_copy(update={"augmentation": params.augmentation.model_copy(update={"seed": 6})})
    shutil.rmtree(folder / "parts" / "1")
    cache.run(other, inputs(folder), folder / "parts" / "1", part="1/3")
    with pytest.raises(InputError, match=r"parts/1 was made with another parameter augmentation than"):
        merged(folder, params)


def test_a_part_by_another_teacher_is_refused(copy):
    folder, params = copy
    shutil.rmtree(folder / "teacher")
    rooms.write_teacher(folder / "teacher", seed=2)
    shutil.rmtree(folder / "parts" / "2")
    cache.run(params, inputs(folder), folder / "parts" / "2", part="2/3")
    with pytest.raises(InputError, match=r"parts/2 was made with another input teacher than"):
        merged(folder, params)


def test_a_damaged_or_unfinished_part_is_refused(copy):
    folder, params = copy
    path = folder / "parts" / "2" / "0-00004.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"0-00004.safetensors"):
        merged(folder, params)
    (folder / "parts" / "2" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"parts/2"):
        merged(folder, params)
