"""The gate's arithmetic: intervals as textbooks have them, and the rates that are promised."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from cliprd.report import aggregate, gate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def simulation():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gate")
    sys.modules.pop("gate")


def rows(seed, n=300, seeds=1, p=0.5):
    return (np.random.default_rng(seed).random((seeds, n)) < p).astype(float)


def test_one_seed_a_side_is_the_paired_bootstrap_over_examples():
    ours, theirs = {"a": rows(0), "b": rows(1)}, {"a": rows(2), "b": rows(3)}
    drawn = aggregate.draw({"x": ours, "y": theirs}, resamples=gate.RESAMPLES, seed=gate.SEED)
    found, expected = gate.differences(ours, theirs, 0.95), aggregate.differences(drawn["x"], drawn["y"], 0.95)
    assert found["mean"] == pytest.approx(expected["mean"], abs=1e-9)
    assert found["tasks"]["b"] == pytest.approx(expected["tasks"]["b"], abs=1e-9)


@pytest.mark.parametrize(("counts", "t"), [((3, 3), 2.776), ((3, 1), 4.303), ((2, 5), 2.571)])
def test_where_seeds_are_all_the_noise_it_is_students_interval(counts, t):
    """Without differences between examples what is left is the classical interval of two samples' means."""
    ours, theirs = (np.random.default_rng(count).normal(size=(count, 1)) for count in counts)
    sides = [{"a": np.repeat(side, 50, axis=1)} for side in (ours, theirs)]
    found = gate.differences(*sides, 0.95)["mean"]
    pooled = sum(float(((side - side.mean()) ** 2).sum()) for side in (ours, theirs)) / (sum(counts) - 2)
    half = t * np.sqrt(pooled * sum(1 / count for count in counts))
    assert found["value"] == pytest.approx(ours.mean() - theirs.mean())
    assert found["high"] - found["value"] == pytest.approx(half, rel=0.06)
    assert found["value"] - found["low"] == pytest.approx(half, rel=0.06)


def test_equal_students_are_a_tie():
    same = {"a": rows(0, seeds=2)}
    found = gate.differences(same, same, 0.95)
    assert aggregate.verdict(found["mean"]) == "open"
    assert gate.differences({"a": rows(0)}, {"a": rows(0)}, 0.95)["mean"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_margins():
    interval = {"value": 0.01, "low": -0.03, "high": 0.05}
    assert gate.not_worse("a", "tasks", interval, 0.031).ok is True
    assert gate.not_worse("a", "tasks", interval, 0.03).ok is False
    assert gate.not_more("parameters", "size", 100, 100, 0).ok is True
    assert gate.not_more("parameters", "size", 101, 100, 0).ok is False
    assert gate.not_more("image", "latency", 1.9, 1.0, 1.0).ok is True
    assert gate.not_more("image", "latency", 1.9, 0.0, 1.0).ok is None


@pytest.mark.parametrize("case", [{}, {"seeds": 3, "training": 0.03}])
def test_students_that_are_no_better_are_promoted_at_most_at_the_stated_rate(simulation, case):
    pairs, stated = 600, (1 - simulation.CONFIDENCE) / 2
    found = simulation.simulate({"task": (200, 0.4)}, pairs=pairs, seed=5, **case)
    assert found["better"] <= stated + 3 * (stated * (1 - stated) / pairs) ** 0.5


def test_better_students_are_promoted_at_the_power_of_the_normal_approximation(simulation):
    """Differences of hits have the standard deviation √(discordant share): known here from the simulation itself."""
    tasks, gain, pairs = {"task": (1000, 0.4)}, 0.05, 300
    ours, theirs = simulation.outcomes(np.random.default_rng(0), {"task": (200_000, 0.4)}, 1, gain, 0)
    deviation = float(np.std(ours["task"] - theirs["task"])) / 1000**0.5
    power = 1 - simulation.NormalDist().cdf(simulation.NormalDist().inv_cdf(0.975) - gain / deviation)
    found = simulation.simulate(tasks, pairs=pairs, seed=6, gain=gain)
    assert found["better"] == pytest.approx(power, abs=3 * (power * (1 - power) / pairs) ** 0.5)
    assert 0.5 < power < 0.99
