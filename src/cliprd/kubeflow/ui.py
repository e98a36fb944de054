"""Metadata, metrics and confusion matrices as the Kubeflow UI shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprd.artifact.manifest import Manifest
from cliprd.artifact.pointer import resolve
from cliprd.files import write_json
from cliprd.kubeflow.retry import attempts, here, reporting
from cliprd.names import visible

MOST_CLASSES = 50  # a larger confusion matrix cannot be read in the Kubeflow UI


def metadata(made: Manifest, *, location: str = "") -> dict[str, Any]:
    """What an artifact's page shows: fingerprints, code version, the facts that are single values, and where it lies.

    Args:
        location: folder of the artifact; where it is a pointer, the address in the store is told.
    """
    facts = {
        name: visible(value) if isinstance(value, str) else value
        for name, value in made.facts.items()
        if isinstance(value, str | int | float)
    }
    inputs = {f"input_{name}": value for name, value in made.inputs.items()}
    with reporting():
        place = attempts(lambda: resolve(location)) if location else Path()
    where = {} if isinstance(place, Path) else {"location": place}
    return {
        **facts,
        **inputs,
        **where,
        "fingerprint": made.fingerprint,
        "code": made.code,
        "stage": made.stage,
    }


def scores(folder: str) -> dict[str, float]:
    """`task protocol metric` → percent, of a benchmark folder."""
    found = json.loads((here(folder) / "scores.json").read_text(encoding="utf-8"))
    return {
        f"{task} {protocol} {metric}": round(100 * value, 2)
        for task, protocols in found.items()
        for protocol, metrics in protocols.items()
        for metric, value in metrics.items()
    }


def confusion(folder: str) -> tuple[list[str], list[list[int]]] | None:
    """Class names and counts (rows: true) of the first classification task that is small enough to be looked at."""
    from safetensors.numpy import load_file

    from cliprd.report.confusion import counts
    from cliprd.report.results import shown_classnames

    place = here(folder)
    results = json.loads((place / "results.json").read_text(encoding="utf-8"))
    for task, entry in sorted(results["tasks"].items()):
        names = shown_classnames(entry["classnames"] or [])
        if entry["kind"] == "classification" and len(names) <= MOST_CLASSES:
            outcomes = load_file(place / "outcomes" / f"{task}.safetensors")
            protocol = next(iter(entry["protocols"]))
            matrix = counts(outcomes["labels"], outcomes[f"{protocol}.predicted"][:, 0], len(names))
            return list(names), matrix.tolist()
    return None


def means(folder: str) -> dict[str, float]:
    """Method → mean score in percent, of a comparison folder."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in here(folder).glob("metrics/*.json")}
    return {name: round(100 * entry["mean"], 2) for name, entry in sorted(found.items())}


def gains(folder: str) -> dict[str, float]:
    """`mean` and task → difference to the champion in points, of a folder of the gate; empty for the first student."""
    found = json.loads((Path(folder) / "decision.json").read_text(encoding="utf-8"))
    differences = {"mean": found["mean"], **found["tasks"]} if "mean" in found else {}
    return {name: round(100 * entry["value"], 2) for name, entry in differences.items()}


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Show `values` as a KFP `Metrics` artifact, and write them as its file.

    KFP keeps metrics in the metadata alone, and its local cache takes an output without a file for lost.
    """
    found = {name: value for name, value in values.items() if math.isfinite(value)}  # others fail the step
    for name, value in found.items():
        artifact.log_metric(visible(name), value)
    write_json(Path(artifact.path), found)


def log_confusion(artifact: Any, folder: str) -> None:
    """Show the confusion matrix of a benchmark folder as KFP's `ClassificationMetrics`, and write it as its file."""
    found = confusion(folder)
    if found:
        artifact.log_confusion_matrix(list(map(visible, found[0])), found[1])
    write_json(Path(artifact.path), {"classes": found[0], "counts": found[1]} if found else {})
