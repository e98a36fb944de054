"""How often the gate promotes: students that are no better (its rate), and students that are better (its power).

Many pairs of students are simulated and decided by the gate's own functions, with the default number of resamples. An
example is as hard for all (`SHARED` of what decides), so outcomes are paired as real ones are; a student's accuracy is
its recipe's plus what its training seed does to it. `better` is the mean's interval above zero, `promoted` all of the
gate: no task may be worse by more than the default margin either.
"""

from __future__ import annotations

import sys
import time
from statistics import NormalDist
from typing import Any

import numpy as np
from _record import save
from numpy.typing import NDArray

from cliprd.params import Margins
from cliprd.promotion import guards
from cliprd.statistics import aggregate
from cliprd.statistics.bootstrap import Settings

Array = NDArray[np.float64]
DEMO = {  # examples and accuracy of clip_kd on the demo's tasks: docs/results/comparison.md
    "fashion_mnist": (2000, 0.103),
    "fluent_emoji": (849, 0.058),
    "openclipart_captions": (232, 0.052),
    "tuxpaint_captions": (325, 0.025),
    "tuxpaint_photos": (268, 0.228),
}
ONE = {n: {"task": (n, 0.4)} for n in (1000, 5000)}
SHARED = 0.8
CONFIDENCE = 0.95
BLOCK = 500  # pairs resampled together


def outcomes(
    rng: np.random.Generator, tasks: dict[str, tuple[int, float]], seeds: int, gain: float, training: float
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Task → `[seeds, examples]` of candidate and champion.

    Args:
        rng: of all that is drawn.
        tasks: task → examples and the champion's accuracy.
        seeds: trainings a side.
        gain: of the candidate's accuracy, on every task.
        training: standard deviation of an accuracy over trainings, the same shift on every task.
    """
    shifts = [gain + training * rng.standard_normal(seeds), training * rng.standard_normal(seeds)]
    sides: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
    for name, (n, accuracy) in tasks.items():
        hard = SHARED**0.5 * rng.standard_normal(n)
        for side, shift in zip(sides, shifts, strict=True):
            right = np.clip(accuracy + shift, 0.002, 0.998)
            limit = np.array([NormalDist().inv_cdf(x) for x in right])
            own = (1 - SHARED) ** 0.5 * rng.standard_normal((seeds, n))
            side[name] = (hard + own < limit[:, None]).astype(np.float64)
    return sides


def simulate(
    tasks: dict[str, tuple[int, float]], *, pairs: int, seed: int, seeds: int = 1, gain: float = 0, training: float = 0
) -> dict[str, Any]:
    """Shares of `pairs` simulated pairs that the gate finds better, and that it promotes."""
    rng = np.random.default_rng(seed)
    margin = Margins().tasks
    assert margin != "none"
    better = promoted = 0
    for start in range(0, pairs, BLOCK):
        drawn = [outcomes(rng, tasks, seeds, gain, training) for _ in range(min(BLOCK, pairs - start))]
        settings = Settings(confidence=CONFIDENCE, seed=seed + start)
        for pair in aggregate.draw(dict(enumerate(drawn)), settings).values():
            entry = aggregate.difference(pair, settings)
            wins = aggregate.verdict(entry["mean"]) == "better"
            better += wins
            promoted += wins and all(
                guards.not_worse(name, "tasks", interval, margin / 100).ok for name, interval in entry["tasks"].items()
            )
    return {"better": better / pairs, "promoted": promoted / pairs}


CASES: list[tuple[str, dict[str, Any]]] = [
    ("no gain, demo's tasks", {"tasks": DEMO}),
    ("no gain, 1,000 examples", {"tasks": ONE[1000]}),
    ("no gain, 5,000 examples", {"tasks": ONE[5000]}),
    ("no gain, demo's tasks, 2 seeds", {"tasks": DEMO, "seeds": 2, "training": 0.01}),
    ("no gain, demo's tasks, 3 seeds", {"tasks": DEMO, "seeds": 3, "training": 0.01}),
    ("no gain, demo's tasks, 5 seeds", {"tasks": DEMO, "seeds": 5, "training": 0.01}),
    ("no gain, 5,000 examples, 3 seeds", {"tasks": ONE[5000], "seeds": 3, "training": 0.01}),
    ("recipe no better, 1 seed, demo's tasks", {"tasks": DEMO, "training": 0.01}),
    ("+1 point, demo's tasks", {"tasks": DEMO, "gain": 0.01}),
    ("+2 points, demo's tasks", {"tasks": DEMO, "gain": 0.02}),
    ("+3 points, demo's tasks", {"tasks": DEMO, "gain": 0.03}),
    ("+3 points, 1,000 examples", {"tasks": ONE[1000], "gain": 0.03}),
    ("+2 points, 5,000 examples", {"tasks": ONE[5000], "gain": 0.02}),
    ("+3 points, demo's tasks, 3 seeds", {"tasks": DEMO, "seeds": 3, "training": 0.01, "gain": 0.03}),
]


def main(pairs: int = 1000) -> None:
    """Simulate and save; four times as many pairs where it is the rate of students that are no better."""
    rows = []
    begun = time.perf_counter()
    for number, (name, case) in enumerate(CASES):
        shown = {"seeds": 1, "gain": 0.0, "training": 0.0, **{k: v for k, v in case.items() if k != "tasks"}}
        count = pairs if shown["gain"] else 4 * pairs
        found = simulate(**case, pairs=count, seed=10_000 * number)
        rows.append({"case": name, **shown, "pairs": count, **found})
    margins = Margins().model_dump()
    stated = (1 - CONFIDENCE) / 2
    seconds = round(time.perf_counter() - begun)
    save("gate", rows, confidence=CONFIDENCE, stated_rate=stated, margins=margins, shared=SHARED, seconds=seconds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
