"""The content of comparison.json: methods × seeds × tasks, from outcomes per example.

    {"schema": 1, "protocol": shown first, "reference", "methods": [...], "seeds": [...],
     "confidence", "resamples", "bootstrap_seed", "interval_covers": "examples" | "examples and seeds", "code",
     "left_out": {TASK: reason},     # found beside the tasks, and not scored
     "tasks": {TASK: {"kind", "metric", "examples": n, "classes": C | null, "chance", "fingerprint"}},
     "protocols": {PROTOCOL: {
        "best": method of the highest mean,
        "teacher": {"mean": I, "tasks": {TASK: I}},
        "methods": {METHOD: {"mean": I, "tasks": {TASK: I}, "kept": I | null,
            "difference": {"mean": I, "tasks": {TASK: I}}, "verdict": "better"|"worse"|"open",   # not for the reference
            "seeds": {SEED: {"mean": x, "tasks": {TASK: x}}}, "seed_std": x | null}}}},
     "fidelity": {METHOD: {"mean": {METRIC: x}, "tasks": {TASK: {METRIC: x}}}},
     "costs": {"teacher"|METHOD: {"parameters", "image_macs", "text_macs", ...}},
     "inputs": {"benchmarks": {RUN: fingerprint}, "students": {RUN: fingerprint}}}

`I` is `{"value", "low", "high"}`. Scores are shares of 1, differences are differences of shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliprd.report import aggregate
from cliprd.report.results import TEACHER

SCHEMA = 1
# Kind → the tensor of its primary metric; of retrieval it is the mean of two (`retrieval_outcomes`).
PRIMARY = {
    "classification": "acc1",
    "multilabel": "mean_average_precision",
    "image_caption_selection": "text_acc",
}


def protocol_block(
    outcomes: aggregate.Outcomes,
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    reference: str,
    confidence: float,
    resamples: int,
    bootstrap_seed: int,
) -> dict[str, Any]:
    """The block of one protocol.

    Args:
        outcomes: `teacher` with one row per task and each method with a row per seed, over identical examples.
        methods, seeds, reference: as in the parameters.
        confidence, resamples, bootstrap_seed: of the intervals.
    """
    drawn = aggregate.draw(outcomes, resamples=resamples, seed=bootstrap_seed)
    block: dict[str, Any] = {"teacher": aggregate.scores(drawn[TEACHER], confidence), "methods": {}}
    for method in methods:
        entry = aggregate.scores(drawn[method], confidence)
        entry["kept"] = aggregate.kept(drawn[method], drawn[TEACHER], confidence)
        if method != reference:
            entry["difference"] = aggregate.differences(drawn[method], drawn[reference], confidence)
            entry["verdict"] = aggregate.verdict(entry["difference"]["mean"])
        entry |= _per_seed(outcomes[method], seeds)
        block["methods"][method] = entry
    block["best"] = max(methods, key=lambda method: block["methods"][method]["mean"]["value"])
    return block


def _per_seed(tasks: Mapping[str, aggregate.Array], seeds: Sequence[int]) -> dict[str, Any]:
    means = {task: rows.mean(axis=1) for task, rows in tasks.items()}
    overall = np.mean(list(means.values()), axis=0)
    per_seed = {
        str(seed): {
            "mean": round(float(overall[i]), 10),
            "tasks": {task: round(float(values[i]), 10) for task, values in means.items()},
        }
        for i, seed in enumerate(seeds)
    }
    spread = round(float(np.std(overall, ddof=1)), 10) if len(seeds) > 1 else None
    return {"seeds": per_seed, "seed_std": spread}


def retrieval_outcomes(
    image_to_text: aggregate.Array, text_to_image: aggregate.Array, captions: aggregate.Array | None
) -> aggregate.Array:
    """`[n]`, one number per image, whose mean is the mean of R@1 in both directions.

    The image is the unit that is resampled, and its captions go with it: they are not independent examples. An image's
    captions count by their number over the average number, so that the mean over the images is exactly
    ½ (mean over the images + mean over all captions).

    Args:
        image_to_text: `[n]`, 1 where the picture found one of its captions first.
        text_to_image: `[n]`, share of the image's captions that found it first.
        captions: `[n]`, how many captions an image has; None where all have one.
    """
    weight = 1.0 if captions is None else captions / captions.mean()
    return np.asarray(0.5 * image_to_text + 0.5 * text_to_image * weight, dtype=np.float64)


def primary_outcomes(outcomes: Mapping[str, Any], protocol: str, kind: str) -> aggregate.Array:
    """`[images]`: what the stage `benchmark` wrote of one task, as the numbers whose mean is its primary metric.

    That is the one in `PRIMARY`, or for retrieval the mean of R@1 in both directions.
    """
    if kind in PRIMARY:
        return np.asarray(outcomes[f"{protocol}.{PRIMARY[kind]}"], dtype=np.float64)
    return retrieval_outcomes(
        outcomes[f"{protocol}.image_to_text_r1"].astype(np.float64),
        outcomes[f"{protocol}.text_to_image_r1"].astype(np.float64),
        outcomes.get(f"weights.{protocol}.text_to_image_r1"),
    )


def mean_fidelity(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean over seeds per task and metric, then over the tasks where a metric is defined.

    Args:
        runs: one per seed: task → metric → value; a metric that is undefined for a task is absent.
    """
    tasks: dict[str, dict[str, float]] = {}
    for task in runs[0]:
        metrics = [m for m in runs[0][task] if all(m in run.get(task, {}) for run in runs)]
        tasks[task] = {m: round(float(np.mean([run[task][m] for run in runs])), 6) for m in metrics}
    names = sorted({metric for values in tasks.values() for metric in values})
    mean = {m: round(float(np.mean([v[m] for v in tasks.values() if m in v])), 6) for m in names}
    return {"mean": mean, "tasks": tasks}
