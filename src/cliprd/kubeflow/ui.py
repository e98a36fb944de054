"""Metadata, metrics and confusion matrices as the Kubeflow UI shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprd.artifact.manifest import Manifest
from cliprd.artifact.pointer import resolve
from cliprd.files import digest, write_json
from cliprd.kubeflow.retry import local_folder, reporting, with_retries
from cliprd.names import visible

MOST_CLASSES = 50  # a larger confusion matrix cannot be read in the Kubeflow UI


def metadata(manifest: Manifest, *, location: str) -> dict[str, Any]:
    """What an artifact's page shows: fingerprints, code version, the facts that are single values, and the address.

    Args:
        manifest: of the artifact's folder.
        location: that folder; where it is a pointer, the page shows the address in the store.
    """
    with reporting():
        address = with_retries(resolve, location)
    facts = {name: value for name, value in manifest.facts.items() if isinstance(value, str | int | float)}
    return {
        **{name: visible(value) if isinstance(value, str) else value for name, value in facts.items()},
        **_inputs(manifest),
        **({} if isinstance(address, Path) else {"location": address}),
        "fingerprint": manifest.fingerprint,
        "code": manifest.code,
        "stage": manifest.stage,
    }


def _inputs(manifest: Manifest) -> dict[str, str]:
    """Fingerprints of the inputs, of all `task:…` one: metadata ride on the command line of every later step."""
    groups: dict[str, dict[str, str]] = {}
    for name, value in manifest.inputs.items():
        groups.setdefault(name.partition(":")[0], {})[name] = value
    return {
        f"input_{group}": values[group] if set(values) == {group} else digest(values)
        for group, values in groups.items()
    }


def scores(folder: str) -> dict[str, float]:
    """`task protocol metric` → percent, of a benchmark folder."""
    tasks = _read(local_folder(folder) / "scores.json")
    return {
        f"{task} {protocol} {metric}": round(100 * value, 2)
        for task, protocols in tasks.items()
        for protocol, metrics in protocols.items()
        for metric, value in metrics.items()
    }


def confusion(folder: str) -> tuple[list[str], list[list[int]]] | None:
    """Class names and counts (rows: true) of the first classification task of at most `MOST_CLASSES` classes."""
    from safetensors.numpy import load_file

    from cliprd.report.confusion import counts
    from cliprd.report.results import shown_classnames

    benchmark = local_folder(folder)
    for task, entry in sorted(_read(benchmark / "results.json")["tasks"].items()):
        names = shown_classnames(entry["classnames"] or [])
        if entry["kind"] == "classification" and len(names) <= MOST_CLASSES:
            outcomes = load_file(benchmark / "outcomes" / f"{task}.safetensors")
            protocol = next(iter(entry["protocols"]))
            matrix = counts(outcomes["labels"], outcomes[f"{protocol}.predicted"][:, 0], len(names))
            return list(names), matrix.tolist()
    return None


def means(folder: str) -> dict[str, float]:
    """Method → mean score in percent, of a comparison folder."""
    files = sorted(local_folder(folder).glob("metrics/*.json"), key=lambda path: path.stem)
    return {path.stem: round(100 * _read(path)["mean"], 2) for path in files}


def gains(folder: str) -> dict[str, float]:
    """`mean` and task → difference to the champion in points, of a folder of the gate; empty for the first student."""
    decision = _read(Path(folder) / "decision.json")
    differences = {"mean": decision["mean"], **decision["tasks"]} if "mean" in decision else {}
    return {name: round(100 * entry["value"], 2) for name, entry in differences.items()}


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Show `values` as a KFP `Metrics` artifact, and write them as its file.

    KFP keeps metrics in the metadata alone, and its local cache treats an output without a file as lost.
    """
    finite = {name: value for name, value in values.items() if math.isfinite(value)}  # others fail the step
    for name, value in finite.items():
        artifact.log_metric(visible(name), value)
    write_json(Path(artifact.path), finite)


def log_confusion(artifact: Any, folder: str) -> None:
    """Show the confusion matrix of a benchmark folder as KFP's `ClassificationMetrics`, and write it as its file."""
    matrix = confusion(folder)
    if matrix:
        artifact.log_confusion_matrix(list(map(visible, matrix[0])), matrix[1])
    write_json(Path(artifact.path), {"classes": matrix[0], "counts": matrix[1]} if matrix else {})


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
