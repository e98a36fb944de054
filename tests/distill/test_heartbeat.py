import threading
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
import torch.distributed as dist

from cliprd.distill.heartbeat import MISSED, Heartbeat

TICK = 0.02


@pytest.fixture
def store():
    return dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))


def beat(store, rank, size, lost):
    return Heartbeat(store.clone(), rank, size, lost.append, every=TICK)


def until(found):
    end = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end
        time.sleep(TICK)


def test_the_rank_before_one_that_hangs_notices_it(store):
    """Rank 2 of 4 never gives a sign: rank 1 tells it, and nobody else does."""
    lost = [[], [], [], []]
    with ExitStack() as stack:
        for rank in (0, 1, 3):
            stack.enter_context(beat(store, rank, 4, lost[rank]))
        until(lambda: lost[1])
        time.sleep(2 * MISSED * TICK)
    assert lost == [[], [2], [], []]


def test_long_work_and_ended_ranks_are_no_hang(store):
    lost = []
    with beat(store, 0, 2, lost):
        with beat(store, 1, 2, lost):
            time.sleep(4 * MISSED * TICK)
        time.sleep(4 * MISSED * TICK)
    assert lost == []
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat" and thread.is_alive()]


def test_a_store_that_is_gone_is_a_lost_contact(store):
    class Gone:
        def add(self, *_):
            raise RuntimeError("connection reset")

    lost = []
    with Heartbeat(Gone(), 1, 2, lost.append, every=TICK):
        until(lambda: lost)
    assert lost == [0]
