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
    assert sorted(order.places) == list(range(sum(sizes)))
    assert (order.places // order.window == np.arange(sum(sizes)) // order.window).all()
    assert order.window <= max(1, buffer)
    again = epoch_order(sizes, seed=seed, epoch=epoch, buffer=buffer)
    assert (again.shards == order.shards).all()
    assert (again.places == order.places).all()


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order([50, 50], seed=s, epoch=e, buffer=100).places) for s in range(3) for e in range(3)}
    assert len(orders) == 9


def test_a_buffer_that_holds_all_shuffles_all():
    order = epoch_order([500, 500], seed=0, epoch=0, buffer=1000)
    assert order.window == 1000
    assert 0.4 < (order.places[:500] < 500).mean() < 0.6


def test_the_order_is_frozen():
    """A resumed training relies on it: a change here changes every run of every seed."""
    order = epoch_order([3, 4], seed=1, epoch=2, buffer=100)
    assert order.shards.tolist() == [1, 0]
    assert order.places.tolist() == [1, 3, 2, 6, 0, 5, 4]


def test_captions_are_spread_and_stateless():
    chosen = [caption_of(f"k{n}", e, 3) for n in range(200) for e in range(5)]
    assert chosen == [caption_of(f"k{n}", e, 3) for n in range(200) for e in range(5)]
    counts = np.bincount(chosen, minlength=3)
    assert counts.min() > 270
    assert caption_of("k", 7, 1) == 0
