"""Intervals cover what they promise, pairs help, seeds count; by simulation and by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.intervals import bootstrap, class_weights, hierarchical, paired_bootstrap


def coverage(draw, truth, trials=400, seed=0, **options):
    """Share of `trials` simulated data sets whose interval has the truth in it."""
    rng = np.random.default_rng(seed)
    hits = 0
    for trial in range(trials):
        found = draw(rng, {"resamples": 400, "seed": trial, **options})
        hits += found.low <= truth <= found.high
    return hits / trials


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_covers_the_truth_of_hits_and_misses(p):
    share = coverage(lambda rng, o: bootstrap(rng.random(150) < p, **o), p)
    assert 0.92 <= share <= 0.98


def test_covers_the_truth_of_a_normal_mean():
    share = coverage(lambda rng, o: bootstrap(rng.normal(3, 2, 80), **o), 3.0)
    assert 0.91 <= share <= 0.975


def test_confidence_is_kept_at_another_level():
    share = coverage(lambda rng, o: bootstrap(rng.normal(0, 1, 100), **o), 0.0, confidence=0.8)
    assert 0.74 <= share <= 0.86


def test_a_statistic_of_ones_own_covers_too():
    share = coverage(
        lambda rng, o: bootstrap(rng.normal(1, 1, 101), statistic=lambda x: float(np.median(x)), **o),
        1.0, trials=150, resamples=200,
    )  # fmt: skip
    assert 0.90 <= share <= 0.99


def test_mean_per_class_covers_even_where_a_class_has_one_example():
    sizes = np.repeat(np.arange(60), [1] * 40 + [6] * 20)
    recall = np.linspace(0.2, 0.9, 60)
    weights = class_weights(sizes)
    share = coverage(
        lambda rng, o: bootstrap(rng.random(len(sizes)) < recall[sizes], weights=weights, **o), recall.mean()
    )
    assert 0.93 <= share <= 0.995


def test_mean_per_class_by_hand():
    found = bootstrap([1, 0, 1, 1], weights=class_weights([7, 7, 7, 9]), resamples=50)
    assert found.value == pytest.approx((2 / 3 + 1) / 2)
    alone = bootstrap([1, 0, 1, 1, 0], weights=class_weights([0, 1, 2, 3, 4]), seed=3)
    plain = bootstrap([1, 0, 1, 1, 0], seed=3)
    assert (alone.value, alone.low, alone.high) == pytest.approx((plain.value, plain.low, plain.high))


def test_pairs_cover_and_are_narrower_when_two_models_agree():
    def draw(rng, o):
        easy = rng.random(200)
        return paired_bootstrap(easy + rng.normal(0.1, 0.1, 200), easy + rng.normal(0, 0.1, 200), **o)

    assert 0.91 <= coverage(draw, 0.1) <= 0.98
    rng = np.random.default_rng(1)
    shared = rng.random(500)
    a, b = (shared < 0.6).astype(float), (shared < 0.57).astype(float)
    pair, alone_a, alone_b = paired_bootstrap(a, b), bootstrap(a, seed=1), bootstrap(b, seed=2)
    unpaired = np.hypot(alone_a.high - alone_a.low, alone_b.high - alone_b.low)
    assert pair.value == pytest.approx(a.mean() - b.mean())
    assert pair.high - pair.low < unpaired / 2


def test_paired_statistic_resamples_both_alike():
    x = np.random.default_rng(0).normal(size=50)
    found = paired_bootstrap(x + 0.5, x, statistic=lambda v: float(np.median(v)), resamples=100)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))


def test_seeds_and_examples_together_cover():
    def draw(rng, o):
        seeds, n = 8, 150
        noise = rng.normal(0, 0.05, (seeds, 1)) + rng.normal(0, 0.3, (1, n)) + rng.normal(0, 0.1, (seeds, n))
        return hierarchical(0.5 + noise, **o)

    assert 0.89 <= coverage(draw, 0.5) <= 0.985


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    base = (rng.random(1000) < 0.5).astype(float)
    same = np.stack([base] * 4)
    spread = same + np.array([[-0.1], [-0.03], [0.04], [0.09]])
    one, four, apart = bootstrap(base), hierarchical(same), hierarchical(spread)
    assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.15)  # copies add nothing
    assert apart.high - apart.low > 1.5 * (four.high - four.low)
    # The bootstrap variance of the seeds' mean is the unbiased one: Σd²/(S−1)/S.
    flat = hierarchical(np.repeat([[-0.1], [-0.03], [0.04], [0.09]], 3, axis=1), resamples=40_000, confidence=0.6827)
    expected = np.std([-0.1, -0.03, 0.04, 0.09], ddof=1) / 2
    assert (flat.high - flat.low) / 2 == pytest.approx(expected, rel=0.1)


def test_seeds_are_paired_in_a_difference():
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.2, (5, 1))
    base = rng.random((5, 300)) + luck
    found = paired_bootstrap(base + 0.02, base)
    assert (found.value, found.low, found.high) == pytest.approx((0.02, 0.02, 0.02))


def test_exact_distribution_of_a_tiny_set():
    values = np.array([0.0, 0.3, 1.0])
    exact = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    found = bootstrap(values, resamples=60_000, confidence=0.7)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(exact, [0.15, 0.85])), abs=0.02)
    many = np.repeat(values, 20)  # the same through the counts of distinct values
    block = bootstrap(many, resamples=20_000)
    expected = 1.96 * np.sqrt(values.var() / 60)
    assert (block.high - block.low) / 2 == pytest.approx(expected, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-10, 10, allow_nan=False), min_size=1, max_size=40),
    st.integers(0, 2**32),
    st.randoms(use_true_random=False),
)
def test_properties(values, seed, shuffler):
    found = bootstrap(values, resamples=60, seed=seed)
    assert found == bootstrap(values, resamples=60, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.value == pytest.approx(np.mean(values))
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    other = bootstrap(shuffled, resamples=60, seed=seed)
    assert (other.low, other.high) == pytest.approx((found.low, found.high))  # the order of the examples is nothing


def test_all_hits_leave_no_doubt_and_seeds_differ():
    assert (lambda i: (i.value, i.low, i.high, i.n))(bootstrap(np.ones(9))) == (1, 1, 1, 9)
    values = np.random.default_rng(0).normal(size=100)
    assert bootstrap(values, seed=0) != bootstrap(values, seed=1)


def test_memory_blocks_change_nothing_but_the_draws(monkeypatch):
    values = np.random.default_rng(0).normal(size=200)
    whole = bootstrap(values, resamples=500)
    monkeypatch.setattr("cliprd.intervals._BLOCK", 1000)
    pieces = bootstrap(values, resamples=500)
    assert (pieces.low, pieces.high) == pytest.approx((whole.low, whole.high), abs=0.03)


def test_json_form_is_rounded():
    assert bootstrap([1, 0, 0], resamples=10).to_dict() == {
        "value": 0.333333, "low": pytest.approx(0, abs=0.34), "high": pytest.approx(0.8, abs=0.2), "n": 3,
        "confidence": 0.95,
    }  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap([]),
        lambda: bootstrap([1.0, float("nan")]),
        lambda: bootstrap([1.0, 2.0], weights=[1.0]),
        lambda: bootstrap([1.0, 2.0], weights=[1.0, 0.0]),
        lambda: bootstrap([1.0], weights=[1.0], statistic=np.median),
        lambda: paired_bootstrap([1.0, 2.0], [1.0]),
        lambda: paired_bootstrap([[1.0, 2.0]], [[1.0, 2.0]], statistic=np.median),
        lambda: hierarchical([1.0, 2.0]),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError, match=r"values|weights|examples|shapes"):
        call()
