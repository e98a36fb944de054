"""Scores and differences over tasks and seeds: right on average, paired, by one rule, honest about few of anything."""

import numpy as np
import pytest
from scipy.stats import t as students_t

from cliprd.report import comparison
from cliprd.statistics import aggregate
from cliprd.statistics.bootstrap import Settings, interval, resample
from cliprd.statistics.outcomes import Outcomes, retrieval


def hits(rate, seeds, n, rng=None):
    """`[seeds, n]` of 0 and 1; without a generator always the same for the same arguments."""
    rng = rng or np.random.default_rng((int(1000 * rate), seeds, n))
    return (rng.random((seeds, n)) < rate).astype(float)


def score(side, **options):
    settings = Settings(**options)
    return aggregate.score(aggregate.draw({"": (side,)}, settings)[""], settings)


def differences(ours, theirs, most=1.0, **options):
    return aggregate.differences(ours, theirs, Settings(**options), most=most)


def width(found):
    return found["high"] - found["low"]


def test_values_are_means_over_examples_seeds_and_tasks():
    side = {"a": hits(0.5, 3, 50), "b": hits(0.2, 3, 31)}
    drawn = aggregate.draw({"m": (side,)}, Settings())["m"]
    assert drawn.value["a"] == pytest.approx(side["a"].mean())
    assert drawn.value[None] == pytest.approx((side["a"].mean() + side["b"].mean()) / 2)
    found = score({"a": hits(0.8, 1, 50), "b": hits(0.4, 1, 31)})
    assert set(found["tasks"]) == {"a", "b"}
    assert found["mean"]["low"] < found["mean"]["value"] < found["mean"]["high"]


def test_one_seed_is_the_plain_bootstrap_of_the_benchmark():
    rows = hits(0.42, 1, 250)
    benchmark = Outcomes({"acc1": rows[0].astype(np.float32)}).scores("t", Settings(seed=3))["acc1"]
    assert score({"t": rows}, seed=3) == {"mean": benchmark, "tasks": {"t": benchmark}}
    other = hits(0.5, 1, 250)
    found = differences({"t": rows}, {"t": other})
    drawn = resample("t", np.vstack([rows, other]), Settings())
    assert found["mean"] == interval(rows.mean() - other.mean(), drawn[0] - drawn[1], Settings())
    assert found["covers"] == "examples"


def test_pairing_cancels_the_difficulty_of_examples():
    base = hits(0.5, 1, 400)
    better = base.copy()
    better[0, np.flatnonzero(base[0] == 0)[:12]] = 1  # 12 of 400 more, none fewer
    found = differences({"t": better}, {"t": base})["mean"]
    assert found["value"] == pytest.approx(0.03)
    assert 0 < found["low"] < found["high"] < 0.06
    assert aggregate.verdict(found) == "better"
    assert width(score({"t": better})["mean"]) > 2.5 * width(found)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_model_compared_with_itself_is_open(seeds):
    rows = hits(0.3, seeds, 80)
    found = differences({"t": rows}, {"t": rows.copy()})["mean"]
    assert found["value"] == 0
    assert aggregate.verdict(found) == "open"
    if seeds == 1:
        assert found == {"value": 0, "low": 0, "high": 0}


def test_draws_do_not_depend_on_other_models():
    a, b, other = hits(0.5, 1, 70), hits(0.6, 1, 70), hits(0.1, 1, 40)
    settings = Settings(resamples=40)
    few = aggregate.draw({"a": ({"t": a},)}, settings)["a"]
    many = aggregate.draw({"b": ({"u": other, "t": b},), "a": ({"u": other, "t": a},)}, settings)["a"]
    np.testing.assert_array_equal(few.resampled["t"], many.resampled["t"])


@pytest.mark.parametrize("counts", [(3, 3), (3, 1), (1, 2), (2, 2), (2, 5), (5, 5)])
def test_with_seed_noise_only_it_is_students_interval(counts):
    """Without differences between examples what is left is the classical interval of two samples' means."""
    ours, theirs = (np.random.default_rng((count, k)).normal(size=(count, 1)) for k, count in enumerate(counts))
    found = differences(*({"a": np.repeat(side, 50, axis=1)} for side in (ours, theirs)), most=np.inf)
    freedom = sum(counts) - 2
    pooled = sum(float(((side - side.mean()) ** 2).sum()) for side in (ours, theirs)) / freedom
    half = students_t.ppf(0.975, freedom) * np.sqrt(pooled * sum(1 / count for count in counts))
    assert found["mean"]["value"] == pytest.approx(ours.mean() - theirs.mean())
    assert found["mean"]["high"] - found["mean"]["value"] == pytest.approx(half, rel=0.03)
    assert found["mean"]["value"] - found["mean"]["low"] == pytest.approx(half, rel=0.03)
    assert found["covers"] == "examples and seeds"


def test_a_score_of_several_seeds_is_students_interval_within_its_bounds():
    means = np.array([[0.45], [0.5], [0.52], [0.55]])
    found = score({"t": np.repeat(means, 50, axis=1)})["mean"]
    half = students_t.ppf(0.975, 3) * means.std(ddof=1) / 2
    assert found["high"] - found["value"] == pytest.approx(half, rel=0.03)
    wide = score({"t": np.repeat([[0.0], [1.0]], 50, axis=1)})["mean"]
    assert (wide["low"], wide["high"]) == (0, 1)
    apart = differences(*({"t": np.repeat(side, 50, axis=1)} for side in ([[0.0], [1.0]], [[0.2], [0.4]])))["mean"]
    assert (apart["low"], apart["high"]) == (-1, 1)


def test_equal_seeds_cover_examples_only():
    ours, theirs = hits(0.6, 1, 300), hits(0.4, 1, 300)
    one = differences({"t": ours}, {"t": theirs})
    for count in (2, 3):
        several = differences({"t": np.repeat(ours, count, axis=0)}, {"t": np.repeat(theirs, count, axis=0)})
        assert several["covers"] == one["covers"] == "examples"
        assert several["mean"] == pytest.approx(one["mean"], abs=1e-9)
    mixed = differences({"t": np.repeat(ours, 2, axis=0)}, {"t": np.vstack([theirs, hits(0.5, 1, 300)])})
    assert mixed["covers"] == "examples and seeds"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_examples_is_never_significant(n):
    found = differences({"t": np.ones((1, n))}, {"t": np.zeros((1, n))})["mean"]
    assert (found["value"], found["low"]) == (1, 0)
    assert aggregate.verdict(found) == "open"


@pytest.mark.parametrize(("differing", "confidence", "word"), [
    (5, 0.95, "open"), (6, 0.95, "better"), (4, 0.9, "open"), (5, 0.9, "better"), (7, 0.99, "open"),
    (8, 0.99, "better"),
])  # fmt: skip
def test_few_differing_examples_are_decided_like_a_sign_test(differing, confidence, word):
    base = np.zeros((1, 500))
    ours = base.copy()
    ours[0, :differing] = 1
    assert aggregate.verdict(differences({"t": ours}, {"t": base}, confidence=confidence)["mean"]) == word
    assert aggregate.verdict(differences({"t": base}, {"t": ours}, confidence=confidence)["mean"]) == {
        "better": "worse"
    }.get(word, word)


def test_kept_is_a_ratio_with_a_paired_interval():
    teacher, settings = {"t": hits(0.8, 1, 500)}, Settings()
    sides = {"teacher": (teacher,), "copy": (dict(teacher),), "none": ({"t": 0 * teacher["t"]},)}
    drawn = aggregate.draw(sides, settings)
    assert aggregate.kept(drawn["copy"], drawn["teacher"], settings) == {"value": 1, "low": 1, "high": 1}
    assert aggregate.kept(drawn["teacher"], drawn["none"], settings) is None


def test_intervals_of_the_mean_over_tasks_have_nominal_coverage():
    rng = np.random.default_rng(11)
    rates, sizes, covered, runs = (0.3, 0.6, 0.8), (120, 80, 150), 0, 250
    for run in range(runs):
        side = {f"t{i}": hits(r, 1, n, rng) for i, (r, n) in enumerate(zip(rates, sizes, strict=True))}
        found = score(side, resamples=300, seed=run, confidence=0.9)["mean"]
        covered += found["low"] <= np.mean(rates) <= found["high"]
    assert 0.84 <= covered / runs <= 0.95


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_scores_of_several_seeds_cover_the_recipes_true_score(seeds):
    rng = np.random.default_rng(seeds)
    covered, runs = 0, 300
    for run in range(runs):
        rates = np.clip(0.5 + 0.05 * rng.standard_normal((seeds, 1)), 0, 1)
        found = score({"t": (rng.random((seeds, 200)) < rates).astype(float)}, resamples=300, seed=run)["mean"]
        covered += found["low"] <= 0.5 <= found["high"]
    assert covered / runs >= 0.95 - 3 * (0.95 * 0.05 / runs) ** 0.5


def test_retrieval_counts_both_directions_and_every_caption():
    owner = np.array([0, 0, 0, 1, 2, 2])
    caption_hits = np.array([1, 0, 0, 1, 1, 0], dtype=float)
    image_hits = np.array([1, 0, 1], dtype=float)
    count = np.bincount(owner)
    share = np.bincount(owner, weights=caption_hits) / count
    found = retrieval(image_hits, share, count.astype(float))
    assert found.mean() == pytest.approx(0.5 * (image_hits.mean() + caption_hits.mean()))
    one_each = retrieval(image_hits, image_hits, None)
    np.testing.assert_array_equal(one_each, image_hits)


def test_fidelity_is_the_mean_over_seeds_then_over_tasks_that_define_it():
    runs = [
        {"a": {"rank": 0.2, "cosine": 0.9}, "b": {"rank": 0.6}},
        {"a": {"rank": 0.4, "cosine": 0.7}, "b": {"rank": 0.6}},
    ]
    found = comparison.mean_fidelity(runs)
    assert found["tasks"]["a"] == {"rank": 0.3, "cosine": 0.8}
    assert found["mean"] == {"rank": 0.45, "cosine": 0.8}
