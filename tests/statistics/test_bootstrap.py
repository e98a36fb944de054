"""The bootstrap over examples covers what it promises, and is the same for everything that is asked of a task."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from cliprd.statistics.bootstrap import Settings, class_weights, interval, resample
from cliprd.statistics.outcomes import Outcomes


def score(values, weights=None, task="t", **options):
    settings = Settings(**options)
    outcomes = Outcomes({"m": np.asarray(values, dtype=float)}, {} if weights is None else {"m": weights})
    return outcomes.scores(task, settings)["m"]


def coverage(draw, truth, trials=400, seed=0, **options):
    """Share of `trials` simulated data sets whose interval has the truth in it."""
    rng = np.random.default_rng(seed)
    hits = 0
    for trial in range(trials):
        found = draw(rng, {"resamples": 400, "seed": trial, **options})
        hits += found["low"] <= truth <= found["high"]
    return hits / trials


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_covers_the_truth_of_hits_and_misses(p):
    assert 0.92 <= coverage(lambda rng, o: score(rng.random(150) < p, **o), p) <= 0.98


def test_covers_the_truth_of_a_normal_mean():
    assert 0.91 <= coverage(lambda rng, o: score(rng.normal(3, 2, 80), **o), 3.0) <= 0.975


def test_coverage_is_nominal_at_another_confidence():
    assert 0.74 <= coverage(lambda rng, o: score(rng.normal(0, 1, 100), **o), 0.0, confidence=0.8) <= 0.86


def test_mean_per_class_covers_even_where_a_class_has_one_example():
    sizes = np.repeat(np.arange(60), [1] * 40 + [6] * 20)
    recall = np.linspace(0.2, 0.9, 60)
    weights = class_weights(sizes)
    share = coverage(lambda rng, o: score(rng.random(len(sizes)) < recall[sizes], weights, **o), recall.mean())
    assert 0.93 <= share <= 0.995


def test_mean_per_class_by_hand():
    assert score([1, 0, 1, 1], class_weights([7, 7, 7, 9]))["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert score([1, 0, 1, 1, 0], class_weights([0, 1, 2, 3, 4])) == score([1, 0, 1, 1, 0])


def test_resamples_of_a_tiny_set_have_the_exact_distribution():
    values = np.array([0.0, 0.3, 1.0])
    exact = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    found = score(values, resamples=60_000, confidence=0.7)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(exact, [0.15, 0.85])), abs=0.02)


@hypothesis(max_examples=60, deadline=None)
@given(st.lists(st.floats(-10, 10, allow_nan=False), min_size=1, max_size=40), st.integers(0, 2**32))
def test_intervals_contain_the_value_and_are_reproducible(values, seed):
    found = score(values, resamples=60, seed=seed)
    assert found == score(values, resamples=60, seed=seed)
    assert min(values) - 1e-9 <= found["low"] <= found["high"] <= max(values) + 1e-9
    assert found["value"] == pytest.approx(np.mean(values), abs=1e-9)


def test_metrics_of_a_task_share_resamples_and_tasks_do_not():
    values = (np.random.default_rng(0).random(100) < 0.3).astype(np.float32)
    weights = class_weights(np.arange(100) % 7)
    both = Outcomes({"a": values, "b": values, "short": values[:40], "w": values}, {"w": weights})
    found = both.scores("t", Settings())
    assert found["a"] == found["b"] == score(values) != score(values, task="u")
    assert found["w"] == score(values, weights)
    assert found["short"] == score(values[:40])
    assert list(found) == ["a", "b", "short", "w"]


def test_fewer_draws_are_the_first_of_more():
    rows = np.random.default_rng(0).random((2, 30))
    few, many = (resample("t", rows, Settings(resamples=r)) for r in (70, 250))
    np.testing.assert_array_equal(few, many[:, :70])


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_empty_and_non_finite_values_are_refused(values):
    with pytest.raises(ValueError, match=r"values|examples"):
        score(values)


def test_enough_resamples_are_needed_for_the_percentiles():
    assert Settings(resamples=39).enough
    assert not Settings(resamples=38).enough
    assert not Settings(resamples=1000, confidence=0.999).enough
    assert interval(0.5, np.linspace(0, 1, 1001), Settings()) == {"value": 0.5, "low": 0.025, "high": 0.975}
