"""Keys: what a Python set says, in less memory; a full disk is told as one."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.data.keys import KeySet

keys = st.text("abAB01_-", min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(keys, st.integers(0, 2)), max_size=60), st.integers(0, 2))
def test_answers_like_a_python_set(tmp_path_factory, given, gone):
    taken = KeySet(tmp_path_factory.mktemp("keys"))
    plain: dict[str, int] = {}
    for key, source in given:
        assert (key in taken) == (key in plain)
        assert taken.add(key, source) == (key not in plain)
        plain.setdefault(key, source)
    taken.forget(gone)
    assert {key for key, _ in given if key in taken} == {key for key, source in plain.items() if source != gone}


def test_adding_many_counts_the_new_ones(tmp_path):
    taken = KeySet(tmp_path)
    assert taken.add_all([], 0) == 0
    assert taken.add_all(["a", "b"], 0) == 2
    assert taken.add_all((key for key in "abc"), 1) == 1
    taken.forget(1)
    assert [key for key in "abc" if key in taken] == ["a", "b"]


def test_keys_beyond_the_cache_are_in_an_unlinked_file(tmp_path):
    taken = KeySet(tmp_path, cache=2**15)
    names = [f"{number * 7919 % 20_011:09d}" for number in range(20_000)]
    assert all(taken.add(name, 0) for name in names)
    assert not any(taken.add(name, 1) for name in names)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_os_error(tmp_path):
    taken = KeySet(tmp_path, cache=2**15)
    taken._table.execute("PRAGMA max_page_count = 16")  # what SQLite meets on a full disk
    with pytest.raises(OSError, match="full") as caught:
        taken.add_all((f"{number:09d}" for number in range(20_000)), 0)
    assert caught.value.errno == errno.ENOSPC
