"""CachedPairs: the loader's own samples, in any worker, in any order."""

import pickle

import pytest
import torch
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, DistributedSampler

import cliprd
from cliprd.data.augment import to_tensor
from cliprd.distill.loader import Loader
from cliprd.distill.order import Position, epoch_order
from cliprd.errors import InputError
from cliprd.models.student import build_student, student_config, student_spec
from tests.distill.rooms import SAMPLES, build, make_params

LENGTH = 16


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    build(folder)
    return folder


@pytest.fixture
def pairs(rooms):
    shards = cliprd.open_shards(rooms / "shards")
    return cliprd.CachedPairs(
        shards, cliprd.open_teacher_cache(str(rooms / "cache"), shards), image_size=16, context_length=LENGTH
    )


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


def test_items_are_the_samples_that_the_training_sees(rooms, pairs):
    """Three epochs of the loader, sample by sample: pixels, tokens and both embeddings."""
    params = make_params(rooms, workers=0)
    shards = cliprd.open_shards(rooms / "shards")
    cache = cliprd.open_teacher_cache(rooms / "cache", shards)
    spec = student_spec(build_student(params.student, seed=0), params.student)
    loader = Loader(params, shards, cache, spec, student_config(params.student))
    batches = loader.batches(Position(0, 0))
    starts = [sum(shard.samples for shard in shards.shards[:i]) for i in range(len(shards.shards))]
    for epoch in range(3):
        pairs.set_epoch(epoch)
        order = epoch_order([shard.samples for shard in shards.shards], seed=0, epoch=epoch, buffer=20_000)
        laid = [starts[i] + row for i in order.shards for row in range(shards.shards[i].samples)]
        places = iter(order.within(0))
        for _ in range(loader.steps_per_epoch):
            batch = next(batches)
            images = to_tensor(batch.images, spec)
            for row in range(len(batch.images)):
                item = pairs[laid[next(places)]]
                assert torch.equal(item["image"], images[row])
                length = batch.tokens.shape[1]
                assert torch.equal(item["tokens"][:length], batch.tokens[row])
                assert item["tokens"].shape == (LENGTH,)
                assert not item["tokens"][length:].any()
                for name in ("teacher_image", "teacher_text"):
                    expected = normalize(getattr(batch, name)[row].float(), dim=0)
                    torch.testing.assert_close(item[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_what_the_process_itself_gives(pairs, start):
    """Also after the epoch has moved on under workers that live on."""
    loader = DataLoader(pairs, batch_size=7, num_workers=2, multiprocessing_context=start, persistent_workers=True)
    for epoch in (0, 3):
        pairs.set_epoch(epoch)
        expected = list(DataLoader(pairs, batch_size=7))
        for batch, own in zip(loader, expected, strict=True):
            assert_same(batch, own)


def test_epochs_differ_and_repeat(pairs):
    def shown(epoch):
        pairs.set_epoch(epoch)
        return [pairs[i] for i in range(len(pairs))]

    first, second = shown(0), shown(1)
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    for a, b in zip(first, shown(0), strict=True):
        assert_same(a, b)


def test_a_distributed_sampler_shares_the_pairs(pairs):
    keys = []
    for rank in range(2):
        sampler = DistributedSampler(pairs, num_replicas=2, rank=rank, shuffle=True)
        keys += [key for batch in DataLoader(pairs, batch_size=5, sampler=sampler) for key in batch["key"]]
    assert len(keys) == len(set(keys)) == SAMPLES


def test_it_pickles_and_indexes_as_a_sequence(pairs):
    expected = pairs[SAMPLES - 1]
    copy = pickle.loads(pickle.dumps(pairs))
    assert_same(copy[-1], expected)
    with pytest.raises(IndexError):
        pairs[SAMPLES]


def test_a_damaged_shard_is_named(pairs, rooms, tmp_path, monkeypatch):
    shard = pairs._shards.shards[0]
    (tmp_path / shard.name).write_bytes((rooms / "shards" / shard.name).read_bytes()[:2000])
    monkeypatch.setattr(pairs._shards, "folder", tmp_path)
    with pytest.raises(InputError, match="is damaged: it ends"):
        pairs[0]
