"""Bodies of the components: a stage runs on KFP's artifacts, and the UI gets its results.

An artifact is any object with `path` and `metadata`; KFP itself is not imported.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from cliprd.artifact.manifest import Manifest
from cliprd.kubeflow import promotion, step, ui

Sections = Mapping[str, Any]
Artifacts = Mapping[str, Any]
"""Name of a stage's input → artifact."""


def run(stage: str, sections: Sections, inputs: Artifacts, output: Any, **options: Any) -> Manifest:
    """`step.run` on artifacts; the output's page shows its manifest."""
    return _shown(output, step.run(stage, sections, _paths(inputs), output.path, **options))


def merge(shards: Any, parts: Sequence[Any], output: Any, *, store: str) -> Manifest:
    """`step.merge` on artifacts."""
    return _shown(output, step.merge({}, shards.path, [part.path for part in parts], output.path, store=store))


def distill(
    sections: Sections, shards: Any, cache: Any, model: Any, training: Any, *, store: str, **options: Any
) -> str:
    """Train in this pod or, where `sections` has `kubernetes`, by a job on many nodes; gives the store's folder."""
    inputs, options = {"shards": shards, "cache": cache}, {**options, "store": store}
    if "kubernetes" in sections:
        manifest = _shown(model, step.distill_nodes(sections, _paths(inputs), model.path, **options))
    else:
        manifest = run("distill", sections, inputs, model, **options)
    ui.log_metrics(training, manifest.facts["final"])
    return step.address(store, "distill", sections, _paths(inputs))


def benchmark(
    sections: Sections,
    inputs: Artifacts,
    results: Any,
    scores: Any,
    confusion: Any = None,
    *,
    store: str,
    content: str,
) -> str:
    """Evaluate a model; a student's confusion matrix is shown too. Gives the folder in the store."""
    run("benchmark", sections, inputs, results, store=store, content=content)
    ui.log_metrics(scores, ui.scores(results.path))
    if confusion is not None:
        ui.log_confusion(confusion, results.path)
    return step.address(store, "benchmark", sections, _paths(inputs), content=content)


def compare(
    sections: Sections,
    students: Sequence[str],
    benchmarks: Sequence[str],
    teacher: Any,
    comparison: Any,
    page: Any,
    table: Any,
    scores: Any,
) -> None:
    """Compare students, in folders here or in the store, with each other and their teacher."""
    _shown(comparison, step.compare(sections, benchmarks, students, teacher.path, comparison.path))
    shutil.copyfile(f"{comparison.path}/index.html", page.path)
    shutil.copyfile(f"{comparison.path}/comparison.md", table.path)
    ui.log_metrics(scores, ui.means(comparison.path))


def gate(sections: Sections, results: Any, decision: Any, gain: Any, *, run_name: str, publish: bool) -> bool:
    """Whether the student is to be promoted."""
    manifest = promotion.gate(sections, results.path, decision.path, run_name=run_name, publish=publish)
    _shown(decision, manifest)
    ui.log_metrics(gain, ui.gains(decision.path))
    return bool(manifest.facts["passed"])


def promote(sections: Sections, model: Any, results: Any, decision: Any, promoted: Any, *, run_name: str) -> None:
    """Make the student the champion."""
    promoted.metadata["version"] = promotion.promote(
        sections, model.path, results.path, decision.path, run_name=run_name
    )
    ui.log_metrics(promoted, ui.scores(results.path))


def refuse(sections: Sections, model: Any, results: Any, decision: Any, refused: Any, *, run_name: str) -> None:
    """Keep a refused student beside the champion."""
    if version := promotion.refuse(sections, model.path, results.path, decision.path, run_name=run_name):
        refused.metadata["version"] = version
    ui.log_metrics(refused, ui.scores(results.path))


def _paths(inputs: Artifacts) -> dict[str, str]:
    return {name: artifact.path for name, artifact in inputs.items()}


def _shown(artifact: Any, manifest: Manifest) -> Manifest:
    artifact.metadata.update(ui.metadata(manifest, location=artifact.path))
    return manifest
