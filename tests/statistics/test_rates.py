"""The rates that the gate promises: how often it promotes what is no better, and what is."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from cliprd.promotion import guards

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def simulation():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gate")
    sys.modules.pop("gate")


def test_margins():
    interval = {"value": 0.01, "low": -0.03, "high": 0.05}
    assert guards.not_worse("a", "tasks", interval, 0.031).ok is True
    assert guards.not_worse("a", "tasks", interval, 0.03).ok is False
    assert guards.not_more("parameters", "size", 100, 100, 0).ok is True
    assert guards.not_more("parameters", "size", 101, 100, 0).ok is False
    assert guards.not_more("image", "latency", 1.9, 1.0, 1.0).ok is True
    assert guards.not_more("image", "latency", 1.9, 0.0, 1.0).ok is None


@pytest.mark.parametrize("case", [{}] + [{"seeds": seeds, "training": 0.03} for seeds in (2, 3, 5)])
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
