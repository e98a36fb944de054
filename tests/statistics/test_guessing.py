"""Guessing and the most frequent answer: what a model that does just that scores, which luck does not pass."""

import numpy as np
import pytest

from cliprd.benchmark.retrieval import retrieve
from cliprd.benchmark.zeroshot import classify
from cliprd.statistics import guessing
from cliprd.statistics.bootstrap import Settings
from cliprd.statistics.outcomes import primary


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def retrieval_rates(owners, images):
    facts = {"kind": "retrieval", "images": images, "classnames": None}
    some = np.random.default_rng(0).normal(size=(images + len(owners), 8))
    outcomes = retrieve(unit(some[:images]), unit(some[images:]), owners).arrays("standard")
    return guessing.rates(outcomes, "standard", facts)


@pytest.mark.parametrize("captions", [[1] * 12, [5] * 12, [1, 1, 1, 1, 9, 3, 2, 2, 1, 1, 1, 1]])
def test_random_embeddings_score_the_guessing_rate_of_retrieval(captions):
    owners, images = np.repeat(np.arange(len(captions)), captions), len(captions)
    rng, scores = np.random.default_rng(0), []
    for _ in range(600):
        found = retrieve(unit(rng.normal(size=(images, 64))), unit(rng.normal(size=(len(owners), 64))), owners)
        scores.append(primary(found.arrays("standard"), "standard", "retrieval").mean())
    assert retrieval_rates(owners, images)["guessing"] == pytest.approx(1 / images)
    assert np.mean(scores) == pytest.approx(1 / images, abs=4 * np.std(scores) / len(scores) ** 0.5)


@pytest.mark.parametrize("captions", [[1] * 5, [7, 1, 2, 1, 1], [2, 2, 2]])
def test_a_constant_model_scores_the_majority_rate(captions):
    """All images in one point: the first is taken, which here has the most captions."""
    owners, images = np.repeat(np.arange(len(captions)), captions), len(captions)
    same = np.ones((images, 8)), np.ones((len(owners), 8))
    found = retrieve(*map(unit, same), owners)
    scored = primary(found.arrays("standard"), "standard", "retrieval").mean()
    assert retrieval_rates(owners, images)["majority"] == pytest.approx(scored)


def test_classification_rates_are_one_class_and_the_largest_class():
    labels = np.array([0, 1, 1, 1, 2])
    outcomes = {**classify(unit(np.ones((5, 4))), unit(np.ones((7, 4))), labels).arrays("paper"), "labels": labels}
    facts = {"kind": "classification", "images": 5, "classnames": list("abcdefg")}
    assert guessing.rates(outcomes, "paper", facts) == {"guessing": pytest.approx(1 / 7), "majority": 0.6}


def above(hits, rate, **options):
    return guessing.above(
        {"m": {"t": np.atleast_2d(hits)}}, {"t": {"guessing": rate, "majority": rate}}, Settings(**options)
    )["m"]


@pytest.mark.parametrize(
    ("hits", "rate", "said"),
    [
        (np.ones(1), 0.01, True),  # right by guessing with a chance of 1 %
        (np.ones(1), 0.1, False),
        (np.ones(1), 1.0, False),
        (np.ones(2), 0.5, False),
        (np.ones(5), 0.5, False),
        (np.ones(6), 0.5, True),
        (np.zeros(500), 0.01, False),
        (np.arange(1000) % 10 == 0, 0.1, False),
        (np.arange(1000) % 7 == 0, 0.1, True),
    ],
)
def test_above_guessing_needs_significance(hits, rate, said):
    assert above(np.asarray(hits, dtype=float), rate) == {"mean": said, "tasks": {"t": said}}


@pytest.mark.parametrize("other", [1.0, 0.1])
def test_a_task_with_rate_0_or_1_is_never_above(other):
    """No image shows any class of a multilabel task: the rate is 0, and so is every score."""
    sides = {"m": {"none": np.zeros((1, 5)), "one": np.full((1, 50), other), "t": np.ones((1, 2))}}
    rates = {task: {"guessing": rate, "majority": rate} for task, rate in (("none", 0.0), ("one", other), ("t", 0.5))}
    found = guessing.above(sides, rates, Settings())["m"]
    assert found["tasks"] == {"none": False, "one": False, "t": False}


def test_above_guessing_needs_every_seed():
    good, bad = np.arange(300) % 2 == 0, np.arange(300) % 10 == 0
    rows = np.stack([good, bad, good]).astype(float)
    assert above(rows[[0, 2]], 0.1)["mean"]
    assert not above(rows, 0.1)["mean"]


def test_a_model_that_guesses_is_called_above_at_most_at_the_stated_rate():
    rng, found, runs = np.random.default_rng(0), 0, 400
    for run in range(runs):
        hits = (rng.random((1, 200)) < 0.25).astype(float)
        found += above(hits, 0.25, resamples=200, seed=run)["mean"]
    assert found / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5
