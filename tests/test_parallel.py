"""Threads work ahead; order, laziness and exceptions are those of `map`."""

import itertools
import threading

import pytest

from cliprd.parallel import cores, ordered_map


def test_order_and_laziness():
    drawn, before = [], set(threading.enumerate())

    def source():
        for i in itertools.count():
            drawn.append(i)
            yield i

    results = ordered_map(lambda i: i * i, source(), workers=3, ahead=5)
    assert [next(results) for _ in range(20)] == [i * i for i in range(20)]
    assert len(drawn) <= 25
    results.close()
    assert [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()] == []


def test_work_overlaps():
    """Both calls must be under way at once, or the barrier breaks."""
    barrier = threading.Barrier(2, timeout=30)
    assert len(list(ordered_map(lambda _: barrier.wait(), range(2), workers=2))) == 2


def test_an_exception_comes_where_its_result_was_due():
    results = ordered_map(lambda i: 1 // (3 - i), range(9), workers=2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_cores():
    assert cores() >= 1
