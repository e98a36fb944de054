"""Intervals: right on average, paired, and independent of what else is compared."""

import numpy as np
import pytest

from cliprd.intervals import bootstrap, hierarchical, paired_bootstrap
from cliprd.report import aggregate, comparison


def hits(rate, seeds, n, rng=None):
    """`[seeds, n]` of 0 and 1; without a generator always the same for the same arguments."""
    rng = rng or np.random.default_rng((int(1000 * rate), seeds, n))
    return (rng.random((seeds, n)) < rate).astype(float)


def test_values_are_means_over_examples_seeds_and_tasks():
    outcomes = {
        "teacher": {"a": hits(0.8, 1, 50), "b": hits(0.4, 1, 31)},
        "m": {"a": hits(0.5, 3, 50), "b": hits(0.2, 3, 31)},
    }
    drawn = aggregate.draw(outcomes, resamples=50, seed=0)
    assert drawn["m"].value["a"] == outcomes["m"]["a"].mean()
    assert drawn["m"].value[None] == pytest.approx((outcomes["m"]["a"].mean() + outcomes["m"]["b"].mean()) / 2)
    scores = aggregate.scores(drawn["teacher"], 0.95)
    assert set(scores["tasks"]) == {"a", "b"}
    assert scores["mean"]["low"] < scores["mean"]["value"] < scores["mean"]["high"]


@pytest.mark.parametrize("seeds", [1, 4])
def test_one_task_agrees_with_the_plain_bootstrap(seeds):
    a, b = hits(0.6, seeds, 300), hits(0.5, seeds, 300)
    drawn = aggregate.draw({"x": {"t": a}, "y": {"t": b}}, resamples=12000, seed=1)
    ours = aggregate.scores(drawn["x"], 0.9)["mean"]
    theirs = hierarchical(a, resamples=12000, confidence=0.9, seed=2)
    assert ours["low"] == pytest.approx(theirs.low, abs=0.006)
    assert ours["high"] == pytest.approx(theirs.high, abs=0.006)
    ours = aggregate.differences(drawn["x"], drawn["y"], 0.9)["tasks"]["t"]
    theirs = paired_bootstrap(a, b, resamples=12000, confidence=0.9, seed=2)
    assert ours["value"] == pytest.approx(theirs.value)
    assert ours["low"] == pytest.approx(theirs.low, abs=0.008)
    assert ours["high"] == pytest.approx(theirs.high, abs=0.008)


def test_pairing_cancels_what_all_models_find_hard():
    base = hits(0.5, 1, 400)
    better = base.copy()
    better[0, np.flatnonzero(base[0] == 0)[:12]] = 1  # 12 of 400 more, none fewer
    drawn = aggregate.draw({"base": {"t": base}, "better": {"t": better}}, resamples=1000, seed=0)
    difference = aggregate.differences(drawn["better"], drawn["base"], 0.95)["mean"]
    assert difference["value"] == pytest.approx(0.03)
    assert 0 < difference["low"] < difference["high"] < 0.06
    assert aggregate.verdict(difference) == "better"
    alone = aggregate.scores(drawn["better"], 0.95)["mean"]
    assert alone["high"] - alone["low"] > 2.5 * (difference["high"] - difference["low"])


def test_a_model_differs_from_itself_by_exactly_nothing():
    rows = hits(0.3, 3, 80)
    drawn = aggregate.draw({"a": {"t": rows}, "b": {"t": rows.copy()}}, resamples=100, seed=0)
    difference = aggregate.differences(drawn["a"], drawn["b"], 0.95)["mean"]
    assert difference == {"value": 0, "low": 0, "high": 0}
    assert aggregate.verdict(difference) == "open"


def test_draws_do_not_depend_on_what_else_is_compared():
    a, b, other = hits(0.5, 1, 70), hits(0.6, 1, 70), hits(0.1, 1, 40)
    few = aggregate.draw({"a": {"t": a}}, resamples=40, seed=3)["a"]
    many = aggregate.draw({"b": {"u": other, "t": b}, "a": {"u": other, "t": a}}, resamples=40, seed=3)["a"]
    np.testing.assert_allclose(few.resampled["t"], many.resampled["t"], atol=1e-12)


def test_seeds_that_disagree_widen_the_interval():
    same = np.repeat(hits(0.5, 1, 2000), 4, axis=0)
    apart = np.stack([hits(rate, 1, 2000)[0] for rate in (0.3, 0.45, 0.55, 0.7)])
    drawn = aggregate.draw({"same": {"t": same}, "apart": {"t": apart}}, resamples=500, seed=0)
    narrow, wide = (aggregate.scores(drawn[m], 0.95)["mean"] for m in ("same", "apart"))
    assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"])


def test_kept_is_a_ratio_with_a_paired_interval():
    teacher = hits(0.8, 1, 500)
    drawn = aggregate.draw(
        {"teacher": {"t": teacher}, "copy": {"t": teacher.copy()}, "none": {"t": 0 * teacher}}, resamples=200, seed=0
    )
    assert aggregate.kept(drawn["copy"], drawn["teacher"], 0.95) == {"value": 1, "low": 1, "high": 1}
    assert aggregate.kept(drawn["teacher"], drawn["none"], 0.95) is None


def test_intervals_of_the_mean_over_tasks_cover_as_often_as_they_say():
    rng = np.random.default_rng(11)
    rates, sizes, covered, runs = (0.3, 0.6, 0.8), (120, 80, 150), 0, 250
    for run in range(runs):
        outcomes = {"m": {f"t{i}": hits(r, 1, n, rng) for i, (r, n) in enumerate(zip(rates, sizes, strict=True))}}
        found = aggregate.scores(aggregate.draw(outcomes, resamples=300, seed=run)["m"], 0.9)["mean"]
        covered += found["low"] <= np.mean(rates) <= found["high"]
    assert 0.84 <= covered / runs <= 0.95


def test_retrieval_counts_both_directions_and_every_caption():
    owner = np.array([0, 0, 0, 1, 2, 2])
    caption_hits = np.array([1, 0, 0, 1, 1, 0], dtype=float)
    image_hits = np.array([1, 0, 1], dtype=float)
    count = np.bincount(owner)
    share = np.bincount(owner, weights=caption_hits) / count
    found = comparison.retrieval_outcomes(image_hits, share, count.astype(float))
    assert found.mean() == pytest.approx(0.5 * (image_hits.mean() + caption_hits.mean()))
    one_each = comparison.retrieval_outcomes(image_hits, image_hits, None)
    np.testing.assert_array_equal(one_each, image_hits)


def test_a_score_agrees_with_the_benchmarks_interval():
    rows = hits(0.42, 1, 250)
    ours = aggregate.scores(aggregate.draw({"m": {"t": rows}}, resamples=4000, seed=0)["m"], 0.95)["mean"]
    theirs = bootstrap(rows[0], resamples=4000, seed=0)
    assert ours["value"] == pytest.approx(theirs.value)
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_fidelity_is_the_mean_over_seeds_then_over_tasks_that_define_it():
    runs = [
        {"a": {"rank": 0.2, "cosine": 0.9}, "b": {"rank": 0.6}},
        {"a": {"rank": 0.4, "cosine": 0.7}, "b": {"rank": 0.6}},
    ]
    found = comparison.mean_fidelity(runs)
    assert found["tasks"]["a"] == {"rank": 0.3, "cosine": 0.8}
    assert found["mean"] == {"rank": 0.45, "cosine": 0.8}
