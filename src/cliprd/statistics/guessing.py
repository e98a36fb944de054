"""What needs no model: guessing, and always giving the most frequent answer. A score must lie above both to be one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cliprd.statistics.aggregate import Key, Side, draw
from cliprd.statistics.bootstrap import Settings, interval, rounded


def rates(outcomes: Mapping[str, Any], protocol: str, facts: Mapping[str, Any]) -> dict[str, float]:
    """`{"guessing", "majority"}` of a task's primary metric, as shares of 1.

    Classification: one class of all at random; the class with most examples always. Retrieval, mean of both directions:
    a caption and an image at random, which is 1/images however many captions an image has (from an image the chance is
    its share of all captions, one over the images on average); and always the image that has most captions, with one of
    them. Multilabel and caption selection: `chance` in results.json, as an answer that is always the same orders
    images, or chooses captions, no better than at random.

    Args:
        outcomes: of the task, as `benchmark` writes them.
        protocol: whose captions count.
        facts: of the task in results.json.
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
    """The mean over tasks of the higher of both rates."""
    return rounded(float(np.mean([max(task.values()) for task in tasks.values()])))


def above(
    sides: Mapping[Key, Side], tasks: Mapping[str, Mapping[str, float]], settings: Settings
) -> dict[Key, dict[str, Any]]:
    """Model → `{"mean": bool, "tasks": {task: bool}}`: whether its scores lie above both rates by their intervals.

    The question is about these trainings and not their recipe: the interval of each seed's own score, over the
    examples, must lie above. So few examples that guessing could have got all of them right show nothing.

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
    luck: dict[str | None, float] = {
        task: rows.shape[1] * math.log(highest[task] or 1) for task, rows in any_side.items()
    }  # a rate of 0: nobody can score there
    highest[None], luck[None] = floor(tasks), sum(luck.values())
    found: dict[Key, dict[str | None, bool]] = {model: dict.fromkeys(luck, True) for model in sides}
    for (model, _), drawn in draw(runs, settings).items():
        for key, resampled in drawn.resampled.items():
            low = interval(drawn.value[key], resampled, settings)["low"]
            found[model][key] &= low > highest[key] and luck[key] <= math.log(settings.tail)
    return {model: {"mean": entries.pop(None), "tasks": entries} for model, entries in found.items()}
