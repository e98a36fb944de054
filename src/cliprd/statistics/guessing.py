"""Baselines without a model: guessing, and always giving the most frequent answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cliprd.statistics.aggregate import Key, Side, draw
from cliprd.statistics.bootstrap import Settings, interval, rounded


def rates(outcomes: Mapping[str, Any], protocol: str, facts: Mapping[str, Any]) -> dict[str, float]:
    """`{"guessing", "majority"}` of a task's primary metric, as shares of 1.

    Classification: a random class; always the class with most examples. Retrieval, mean of both directions: a random
    caption or image, which gives 1/images however many captions an image has (from an image, the chance is its share of
    all captions, 1/images on average); always the image that has most captions, with one of them. Multilabel and
    caption selection: `chance` in results.json for both, as a constant answer is no better than a random one.

    Args:
        outcomes: the task's, as `benchmark` writes them.
        protocol: determines which captions count.
        facts: the task's entry in results.json.
    """
    images = facts["images"]
    if facts["kind"] in ("multilabel", "image_caption_selection"):
        return {"guessing": rounded(facts["chance"]), "majority": rounded(facts["chance"])}
    if facts["kind"] == "classification":
        counts = np.bincount(outcomes["labels"])
        guessing = 1 / len(facts["classnames"])
        return {"guessing": rounded(guessing), "majority": rounded(counts.max() / images)}
    captions = outcomes.get(f"weights.{protocol}.text_to_image_r1")
    most = 1 / images if captions is None else float(captions.max() / captions.sum())
    return {"guessing": rounded(1 / images), "majority": rounded((1 / images + most) / 2)}


def floor(tasks: Mapping[str, Mapping[str, float]]) -> float:
    """Mean over tasks of the higher of the two rates."""
    return rounded(float(np.mean([max(task.values()) for task in tasks.values()])))


def above(
    sides: Mapping[Key, Side], tasks: Mapping[str, Mapping[str, float]], settings: Settings
) -> dict[Key, dict[str, Any]]:
    """Model → `{"mean": bool, "tasks": {task: bool}}`: whether its scores are significantly above both rates.

    This is about these trainings, not their recipe: the interval over examples of each seed's own score must lie above.
    It is False if there are so few examples that guessing could have got all of them right.

    Args:
        sides: model → task → `[seeds, examples]`.
        tasks: task → `rates`.
        settings: of the intervals.
    """
    runs = {
        (model, seed): ({task: rows[seed : seed + 1] for task, rows in side.items()},)
        for model, side in sides.items()
        for seed in range(len(next(iter(side.values()))))
    }
    highest: dict[str | None, float] = {task: max(rate.values()) for task, rate in tasks.items()}
    any_side = next(iter(sides.values()))
    log_chance: dict[str | None, float] = {
        task: rows.shape[1] * math.log(highest[task] or 1) for task, rows in any_side.items()
    }  # of guessing every example right; 0 for a rate of 0
    highest[None], log_chance[None] = floor(tasks), sum(log_chance.values())
    is_above: dict[Key, dict[str | None, bool]] = {model: dict.fromkeys(log_chance, True) for model in sides}
    for (model, _), drawn in draw(runs, settings).items():
        for key, resampled in drawn.resampled.items():
            low = interval(drawn.value[key], resampled, settings)["low"]
            is_above[model][key] &= low > highest[key] and log_chance[key] <= math.log(settings.tail)
    return {model: {"mean": entries.pop(None), "tasks": entries} for model, entries in is_above.items()}
