"""The content of comparison.json (docs/formats.md): methods × seeds × tasks, from outcomes per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliprd.report import verdicts
from cliprd.report.results import TEACHER
from cliprd.report.runs import Grid, Run
from cliprd.report.standing import side
from cliprd.statistics import aggregate, guessing
from cliprd.statistics.aggregate import EXAMPLES, SEEDS, Side
from cliprd.statistics.bootstrap import Settings
from cliprd.statistics.outcomes import PRIMARY

SCHEMA = 2
METRIC = {**PRIMARY, "retrieval": "mean_r1"}


def protocol_block(
    outcomes: Mapping[str, Side],
    rates: Mapping[str, Mapping[str, float]],
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    reference: str,
    settings: Settings,
) -> dict[str, Any]:
    """The block of one protocol.

    Args:
        outcomes: `teacher` with one row per task and each method with a row per seed, over the same examples.
        rates: task → `guessing.rates`.
        methods, seeds, reference: as in the parameters.
        settings: of the intervals.
    """
    models = [TEACHER, *methods]
    means = {method: aggregate.seed_means(outcomes[method]) for method in methods}
    best = max(methods, key=lambda method: float(np.mean(means[method][1])))
    quantities: dict[tuple[str, str], Sequence[Side]] = {("", model): (outcomes[model],) for model in models}
    quantities |= {(base, m): (outcomes[m], outcomes[base]) for base in {reference, best} for m in methods if m != base}
    drawn = aggregate.draw(quantities, settings)
    above = guessing.above({model: outcomes[model] for model in models}, rates, settings)
    entries = {
        model: {**aggregate.score(drawn["", model], settings), "above_guessing": above[model]} for model in models
    }
    for method in methods:
        entry = entries[method]
        entry["covers"] = drawn["", method].covers
        entry["kept"] = aggregate.kept(drawn["", method], drawn["", TEACHER], settings)
        if method != reference:
            entry["difference"] = aggregate.difference(drawn[reference, method], settings)
            entry["verdict"] = aggregate.verdict(entry["difference"]["mean"])
        entry |= _per_seed(*means[method], seeds)
    behind = {m: aggregate.difference(drawn[best, m], settings)["mean"] for m in methods if m != best}
    block: dict[str, Any] = {
        "best": best,
        "leaders": [m for m in methods if m == best or aggregate.verdict(behind[m]) != "worse"],
        "floor": {"mean": guessing.floor(rates), "tasks": dict(rates)},
        "teacher": entries.pop(TEACHER),
        "methods": entries,
    }
    return {"headline": verdicts.headline(block, reference), **block}


def _per_seed(tasks: Mapping[str, Sequence[float]], overall: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    per_seed = {
        str(seed): {"mean": overall[i], "tasks": {task: values[i] for task, values in tasks.items()}}
        for i, seed in enumerate(seeds)
    }
    spread = round(float(np.std(overall, ddof=1)), 10) if len(seeds) > 1 else None
    return {"seeds": per_seed, "seed_std": spread}


def mean_fidelity(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean over seeds per task and metric, then over the tasks for which a metric is defined.

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


def build(grid: Grid, *, reference: str, protocol: str) -> dict[str, Any]:
    """The content of comparison.json."""
    results = grid.teacher.results
    settings = Settings.of(results)
    facts = results["tasks"]
    protocols = [p for p in ("standard", "paper") if all(p in task["protocols"] for task in facts.values())]
    blocks = {}
    for name in protocols:
        sides = {TEACHER: [grid.teacher], **grid.methods}
        blocks[name] = protocol_block(
            {model: side(runs, name, list(facts)) for model, runs in sides.items()},
            {task: guessing.rates(grid.teacher.tensors("outcomes", task), name, facts[task]) for task in facts},
            methods=list(grid.methods),
            seeds=grid.seeds,
            reference=reference,
            settings=settings,
        )
    seeded = any(entry["covers"] == SEEDS for block in blocks.values() for entry in block["methods"].values())
    return {
        "schema": SCHEMA,
        "protocol": protocol,
        "reference": reference,
        "methods": list(grid.methods),
        "seeds": list(grid.seeds),
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "bootstrap_seed": settings.seed,
        "interval_covers": SEEDS if seeded else EXAMPLES,
        "tasks": {name: _task(task) for name, task in facts.items()},
        "left_out": {name: why for run in grid.runs for name, why in run.results.get("left_out", {}).items()},
        "protocols": blocks,
        "fidelity": {method: mean_fidelity([_fidelity(r) for r in runs]) for method, runs in grid.methods.items()},
        "costs": {model: dict(grid.first(model).results["cost"]) for model in (TEACHER, *grid.methods)},
        "inputs": {
            "benchmarks": {run.name: run.manifest.fingerprint for run in grid.runs},
            "students": {run.name: run.student_manifest.fingerprint for run in grid.runs if run.student_manifest},
        },
    }


def _task(facts: Mapping[str, Any]) -> dict[str, Any]:
    classes = len(facts["classnames"]) if facts["classnames"] else None
    return {
        "kind": facts["kind"],
        "metric": METRIC[facts["kind"]],
        "examples": facts["images"],
        "classes": classes,
        "chance": facts.get("chance", round(1 / (classes or facts["images"]), 6)),
        "fingerprint": facts["fingerprint"],
    }


def _fidelity(run: Run) -> dict[str, dict[str, float]]:
    tasks = run.results["tasks"]
    return {
        name: {metric: score["value"] for metric, score in task["fidelity"]["scores"].items()}
        for name, task in tasks.items()
        if task["fidelity"]
    }
