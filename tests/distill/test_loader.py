import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.data.augment import view_of
from cliprd.data.quick import quick_views
from cliprd.distill.distributed import World
from cliprd.distill.division import Division
from cliprd.distill.loader import Loader
from cliprd.distill.order import Position, caption_of, epoch_order
from cliprd.models.image_spec import ImageSpec
from cliprd.models.student import student_config, tokenize
from tests.distill.rooms import SAMPLES, make_params, open_rooms

SPEC = ImageSpec(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
STEPS = 5  # batches of 9 or 10


def make(rooms, *, budget=2**30, **distill):
    params = make_params(rooms, **distill)
    shards, cache = open_rooms(rooms, params)
    return Loader(params, shards, cache, SPEC, student_config(params.student), memory_budget=budget)


def listed(loader, epoch=0, step=0):
    return list(loader.batches(Position(epoch, step)))


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for field in vars(a):
            assert torch.equal(getattr(a, field), getattr(b, field)), field


@pytest.fixture(scope="module")
def reference(rooms):
    return listed(make(rooms, workers=0))


def test_batches_are_what_their_formulas_say(rooms, reference):
    """Every batch from first principles: same key, same view, same box, same caption."""
    params = make_params(rooms)
    shards, cache = open_rooms(rooms, params)
    config = student_config(params.student)
    assert len(reference) == 3 * STEPS
    for epoch in range(3):
        order = epoch_order([s.samples for s in shards.shards], seed=0, epoch=epoch, buffer=20_000)
        laid = []
        for index in order.shards:
            image, text, _ = cache.read(shards.shards[index])
            laid += list(zip(shards.read(shards.shards[index]), image, text, strict=True))
        for step in range(STEPS):
            batch = reference[epoch * STEPS + step]
            samples = [
                laid[place] for place in order.within(0)[SAMPLES * step // STEPS : SAMPLES * (step + 1) // STEPS]
            ]
            captions = [s.captions[caption_of(s.key, epoch, len(s.captions))] for s, _, _ in samples]
            expected = tokenize(config, captions)
            assert torch.equal(batch.tokens, expected)  # so also: cut to the longest of the batch
            for row, (sample, image, text) in enumerate(samples):
                view = view_of(sample.key, epoch, 2)
                crop = quick_views(sample.image, sample.key, [view], params.augmentation, SPEC, max_pixels=10**6)[view]
                assert np.array_equal(batch.images[row].numpy(), crop)
                assert np.array_equal(batch.teacher_image[row].numpy(), image[view])
                caption = caption_of(sample.key, epoch, len(sample.captions))
                assert np.array_equal(batch.teacher_text[row].numpy(), text[caption])


def test_types(reference):
    batch = reference[1]
    assert batch.images.shape == (10, 16, 16, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.tokens.dtype == torch.int64
    assert batch.teacher_image.shape == batch.teacher_text.shape == (10, 24)
    assert batch.teacher_image.dtype == torch.float16


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(rooms, reference, workers):
    assert_same(listed(make(rooms, workers=workers)), reference)


def test_streaming_from_disk_is_the_same_as_from_memory(rooms, reference):
    loader = make(rooms, budget=0)
    assert not loader.resident
    assert make(rooms).resident
    assert_same(listed(loader), reference)


@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("buffer", [7, 20, 20_000])
def test_any_position_gives_the_rest_of_the_stream(rooms, budget, buffer):
    whole = listed(make(rooms, budget=budget, shuffle_buffer=buffer))
    for epoch, step in ((0, 1), (0, STEPS - 1), (1, 0), (1, 2), (2, STEPS - 1), (3, 0)):
        rest = listed(make(rooms, budget=budget, shuffle_buffer=buffer), epoch, step)
        assert_same(rest, whole[epoch * STEPS + step :])


def test_a_small_buffer_still_gives_each_sample_once(rooms):
    """By the teacher's rows in the batches themselves."""
    loader = make(rooms, budget=0, shuffle_buffer=8, batch_size=11, epochs=1)
    rows = [tuple(row) for batch in listed(loader) for row in batch.teacher_image.tolist()]
    params = make_params(rooms)
    shards, cache = open_rooms(rooms, params)
    expected = []
    for shard in shards.shards:
        image, _, _ = cache.read(shard)
        expected += [
            tuple(views[view_of(sample.key, 0, 2)].tolist())
            for sample, views in zip(shards.read(shard), image, strict=True)
        ]
    assert sorted(rows) == sorted(expected)


def test_resuming_reads_no_shard_that_lies_behind(rooms, monkeypatch):
    loader = make(rooms, budget=0, shuffle_buffer=2, epochs=1)
    read = []
    original = loader._shards.read
    monkeypatch.setattr(loader._shards, "read", lambda shard: read.append(shard.name) or original(shard))
    order = epoch_order([s.samples for s in loader._shards.shards], seed=0, epoch=0, buffer=2)
    listed(loader, 0, STEPS - 1)  # from place 38 on: shards of 11 samples
    names = [loader._shards.shards[index].name for index in order.shards]
    assert read
    assert not set(read) & set(names[:2])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data(), st.integers(2, SAMPLES + 5), st.integers(1, 4), st.integers(1, 60), st.booleans())
def test_every_sample_once_an_epoch_on_any_number_of_ranks_also_across_a_resume(rooms, data, size, ranks, buffer, kept):
    """Two epochs, stopped at a position and gone on from it by another number of ranks."""
    steps = Division(SAMPLES, size).steps
    stop, others = data.draw(st.integers(0, 2 * steps)), data.draw(st.integers(1, 4))

    def keys(world, start):
        params = make_params(rooms, batch_size=size, shuffle_buffer=buffer, epochs=2)
        spec, budget = student_config(params.student), 2**30 if kept else 0
        loader = Loader(params, *open_rooms(rooms, params), SPEC, spec, part=world.part, memory_budget=budget)
        return [(epoch, [row.key for row in rows]) for rows, epoch in loader._jobs(start)]

    seen = [
        (epoch, key)
        for rank in range(ranks)
        for epoch, batch in keys(World(rank, ranks), Position(0, 0))[:stop]
        for key in batch
    ]
    seen += [
        (epoch, key)
        for rank in range(others)
        for epoch, batch in keys(World(rank, others), Position(*divmod(stop, steps)))
        for key in batch
    ]
    assert len(seen) == len(set(seen)) == 2 * SAMPLES


def test_kept_rows_drop_their_bytes(rooms):
    loader = make(rooms)
    listed(loader)
    seen = [row for rows in loader._all for row in rows if row.crops]
    assert seen
    assert all(row.image is None and row.tokens for row in seen)


def test_leaving_early_ends_the_threads(rooms):
    import threading

    for budget in (0, 2**30):
        batches = make(rooms, budget=budget, shuffle_buffer=4).batches(Position(0, 0))
        next(batches)
        batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith(("loader", "reader"))]


def test_waiting_is_measured(rooms):
    loader = make(rooms, workers=0)
    listed(loader)
    assert loader.waited > 0
