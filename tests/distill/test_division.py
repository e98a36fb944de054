from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.distill.distributed import World
from cliprd.distill.division import Division
from cliprd.errors import ParamsError

property_test = settings(deadline=None, derandomize=True)
samples, batch_sizes, sizes = st.integers(2, 5000), st.integers(2, 600), st.integers(1, 9)


@property_test
@given(samples, batch_sizes, sizes)
def test_batches_and_parts_cover_an_epoch_once_with_nearly_equal_sizes(n, b, w):
    division = Division(n, b)
    spans = [division.span(step) for step in range(division.steps)]
    assert (spans[0].start, spans[-1].stop) == (0, n)
    assert all(one.stop == other.start for one, other in pairwise(spans))
    lengths = [division.size(step) for step in range(division.steps)]
    assert lengths == [span.stop - span.start for span in spans]
    assert max(lengths) <= b
    assert max(lengths) - min(lengths) <= 1
    assert division.steps == 1 or (division.steps - 1) * b < n  # no more batches than it takes
    for rows in set(lengths):
        parts = [World(rank, w).part(rows) for rank in range(w)]
        held = [len(range(rows)[part]) for part in parts]
        assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
        assert max(held) - min(held) <= 1
        assert max(held) == -(-rows // w)


@property_test
@given(samples, batch_sizes, sizes)
def test_an_accepted_division_gives_every_process_a_row(n, b, w):
    division = Division(n, b)
    try:
        division.check(w)
    except ParamsError:
        assert min(division.size(step) for step in range(division.steps)) < w
    else:
        assert all(
            World(rank, w).part(division.size(step)) != slice(0, 0)
            and len(range(n)[World(rank, w).part(division.size(step))]) > 0
            for step in range(division.steps)
            for rank in range(w)
        )


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert (Division(5, 100).steps, Division(5, 100).size(0)) == (1, 5)
    assert (Division(101, 100).size(0), Division(101, 100).size(1)) == (50, 51)  # no batch of one


def test_too_few_samples_are_refused():
    Division(2, 8).check(2)
    with pytest.raises(ParamsError, match=r"The set holds 1 sample: a contrastive loss needs two\. Give more data\."):
        Division(1, 8).check(1)
    with pytest.raises(
        ParamsError, match=r"divides 5 samples into batches of 2, fewer than the 4 processes\. .* to 2 at"
    ):
        Division(5, 4).check(4)
