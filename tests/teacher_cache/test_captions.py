"""Identical captions are embedded once; memory is bounded; a replay leads to the same state."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.teacher_cache.captions import _OVERHEAD, CaptionRows, digest, replay


class Recorder:
    """Embeds a caption by its bytes and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return np.stack([np.frombuffer(digest(text)[:8], np.uint8).astype(np.float16) for text in texts])


def expected(captions):
    return np.stack([Recorder()([caption])[0] for caption in captions])


def test_each_once_over_all_shards():
    rows, embed = CaptionRows(8), Recorder()
    assert np.array_equal(rows.rows(["b", "a", "b"], embed), expected(["b", "a", "b"]))
    assert np.array_equal(rows.rows(["a", "ccc", "b"], embed), expected(["a", "ccc", "b"]))
    assert np.array_equal(rows.rows(["a"], embed), expected(["a"]))
    assert embed.asked == [["a", "b"], ["ccc"]]
    assert rows.embedded == 3


def test_memory_is_bounded_and_the_oldest_go():
    rows, embed = CaptionRows(8, budget=3 * (2 * 8 + _OVERHEAD)), Recorder()
    assert rows.capacity == 3
    assert len(rows.rows([f"{i}" for i in range(10)], embed)) == 10  # more than fits: right all the same
    assert len(rows._rows) == 3
    rows.rows(["9", "new"], embed)
    assert embed.asked[1:] == [["new"]]
    rows.rows(["7"], embed)  # pushed out by "new"
    assert embed.asked[2:] == [["7"]]


shards = st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(shards, st.integers(1, 6), st.data())
def test_a_replay_of_finished_shards_goes_on_as_the_undisturbed_build(found, capacity, data):
    cut = data.draw(st.integers(0, len(found)))
    budget = capacity * (2 * 8 + _OVERHEAD)
    whole, whole_embed = CaptionRows(8, budget), Recorder()
    for captions in found:
        whole.rows(captions, whole_embed)
    before, resumed, embed = CaptionRows(8, budget), CaptionRows(8, budget), Recorder()
    for captions in found[:cut]:
        before.rows(captions, Recorder())
    replay(resumed, found[:cut], lambda captions: [digest(caption) for caption in captions], expected)
    assert list(resumed._rows) == list(before._rows)
    for captions in found[cut:]:
        assert np.array_equal(resumed.rows(captions, embed), expected(captions))
    assert embed.asked == whole_embed.asked[len(whole_embed.asked) - len(embed.asked) :]
