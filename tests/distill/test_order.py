import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.distill.order import caption_of, epoch_order

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@settings(deadline=None, derandomize=True)
@given(sizes, st.integers(0, 99), st.integers(0, 9), st.integers(1, 200))
def test_every_sample_once_and_within_its_window(sizes, seed, epoch, buffer):
    order = epoch_order(sizes, seed=seed, epoch=epoch, buffer=buffer)
    assert sorted(order.shards) == list(range(len(sizes)))
    lengths = [len(order.within(number)) for number in range(order.windows)]
    assert sum(lengths) == order.samples == sum(sizes)
    assert set(lengths[:-1]) <= {order.window}
    for number, length in enumerate(lengths):
        assert sorted(order.within(number)) == list(range(length))
    assert order.window <= max(1, buffer)
    again = epoch_order(sizes, seed=seed, epoch=epoch, buffer=buffer)
    assert (again.shards == order.shards).all()
    for number in reversed(range(order.windows)):  # each on its own, whichever was asked for before
        assert (again.within(number) == order.within(number)).all()


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order([50, 50], seed=s, epoch=e, buffer=100).within(0)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


def test_a_buffer_that_holds_all_shuffles_all():
    order = epoch_order([500, 500], seed=0, epoch=0, buffer=1000)
    assert order.window == 1000
    assert 0.4 < (order.within(0)[:500] < 500).mean() < 0.6


def test_windows_of_one_epoch_are_shuffled_unlike():
    order = epoch_order([1000], seed=0, epoch=0, buffer=100)
    assert order.windows == 20
    assert len({tuple(order.within(number)) for number in range(order.windows)}) == 20


def test_memory_does_not_grow_with_the_samples():
    """DataComp-1B: its last window comes at once, without the places of all samples before it."""
    order = epoch_order([10_000] * 100_000, seed=0, epoch=0, buffer=20_000)
    assert order.shards.nbytes <= 8 * 100_000
    assert len(order.within(order.windows - 1)) == order.window == 10_000


def test_the_order_is_frozen():
    """A resumed training relies on it: a change here changes every run of every seed."""
    order = epoch_order([3, 4], seed=1, epoch=2, buffer=100)
    assert order.shards.tolist() == [1, 0]
    assert order.within(0).tolist() == [3, 4, 5, 6, 0, 2, 1]


def test_captions_are_spread_and_stateless():
    chosen = [caption_of(f"k{n}", e, 3) for n in range(200) for e in range(5)]
    assert chosen == [caption_of(f"k{n}", e, 3) for n in range(200) for e in range(5)]
    counts = np.bincount(chosen, minlength=3)
    assert counts.min() > 270
    assert caption_of("k", 7, 1) == 0
