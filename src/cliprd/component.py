"""A stage's face in a container: parameters as KFP hands them over, failures as one line and an exit code.

KFP itself is not imported here: artifacts come as folders, and what a UI should show is returned as plain values.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cliprd import params, storage
from cliprd.errors import CliprdError, InputError, RetryableError
from cliprd.manifest import Manifest, write_json

ATTEMPTS = 5
FIRST_PAUSE = 2.0  # seconds; doubled each time, and spread over half to once and a half of it
MOST_CLASSES = 50  # a larger confusion matrix cannot be read in the Kubeflow UI


def run(stage: str, sections: Mapping[str, Any], inputs: Mapping[str, str], output: str) -> Manifest:
    """Run one stage; what may heal is tried again here, so that the scheduler need not repeat what cannot.

    Args:
        stage: name of a module of `cliprd.stages`.
        sections: sections of the parameter tree; those left out keep their defaults.
        inputs: name → folder, as the stage takes them: here, `s3://`, or one that points there (`storage.resolve`).
        output: folder to write, here or `s3://`.

    A failure ends the process: its message alone on stderr, its exit code as in `cliprd.errors`.
    """
    try:
        tree = params.validate({name: _whole_numbers(section) for name, section in sections.items()}, where=stage)
        module = importlib.import_module(f"cliprd.stages.{stage}")
        folders = {name: storage.parse(path) for name, path in inputs.items()}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found: Manifest = module.run(tree, folders, storage.parse(output))
                return found
            except RetryableError as error:
                if attempt == ATTEMPTS:
                    raise
                pause = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
                print(f"cliprd: {error} Attempt {attempt} of {ATTEMPTS}; next in {pause:.0f} s.", file=sys.stderr)
                time.sleep(pause)
        raise AssertionError("unreachable")
    except CliprdError as error:
        _end(error)


def compare(
    sections: Mapping[str, Any], benchmarks: Sequence[str], students: Sequence[str], teacher: str, output: str
) -> Manifest:
    """`compare` of folders that lie anywhere: each student's manifest says its method and seed.

    `ablation.methods` and `ablation.seeds` are what was trained, in the order of `students`.
    """
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        trained: list[tuple[str, int]] = []
        try:
            runs = {_name(folder, trained): folder for folder in map(_here, students)}
            scores = {_benchmarked(folder): folder for folder in map(_here, benchmarks)}
            baseline = _here(teacher)
        except CliprdError as error:
            _end(error)
        for kind, folders in (("students", runs), ("benchmarks", {**scores, "teacher": baseline})):
            (room / kind).mkdir()
            for name, folder in folders.items():
                (room / kind / name).symlink_to(folder)
        methods, seeds = (list(dict.fromkeys(column)) for column in zip(*trained, strict=True))
        ablation = {**sections.get("ablation", {}), "methods": methods, "seeds": seeds}
        return run(
            "compare",
            {**sections, "ablation": ablation},
            {"benchmarks": str(room / "benchmarks"), "students": str(room / "students")},
            output,
        )


def metadata(manifest: Manifest) -> dict[str, Any]:
    """What an artifact's page shows: fingerprints, code version and the facts that are single values."""
    facts = {name: value for name, value in manifest.facts.items() if isinstance(value, str | int | float)}
    inputs = {f"input_{name}": value for name, value in manifest.inputs.items()}
    return {**facts, **inputs, "fingerprint": manifest.fingerprint, "code": manifest.code, "stage": manifest.stage}


def scores(folder: str) -> dict[str, float]:
    """`task protocol metric` → percent, of a benchmark folder."""
    found = json.loads((_here(folder) / "scores.json").read_text(encoding="utf-8"))
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

    place = _here(folder)
    results = json.loads((place / "results.json").read_text(encoding="utf-8"))
    for task, entry in sorted(results["tasks"].items()):
        names = entry["classnames"] or []
        if 0 < len(names) <= MOST_CLASSES:
            outcomes = load_file(place / "outcomes" / f"{task}.safetensors")
            protocol = next(iter(entry["protocols"]))
            matrix = counts(outcomes["labels"], outcomes[f"{protocol}.predicted"][:, 0], len(names))
            return list(names), matrix.tolist()
    return None


def means(folder: str) -> dict[str, float]:
    """Method → mean score in percent, of a comparison folder."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in _here(folder).glob("metrics/*.json")}
    return {name: round(100 * entry["mean"], 2) for name, entry in sorted(found.items())}


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Show `values` as a KFP `Metrics` artifact, and write them as its file.

    KFP keeps metrics in the metadata alone, and its local cache takes an output without a file for lost.
    """
    for name, value in values.items():
        artifact.log_metric(name, value)
    write_json(Path(artifact.path), dict(values))


def log_confusion(artifact: Any, folder: str) -> None:
    """Show the confusion matrix of a benchmark folder as KFP's `ClassificationMetrics`, and write it as its file."""
    found = confusion(folder)
    if found:
        artifact.log_confusion_matrix(*found)
    write_json(Path(artifact.path), {"classes": found[0], "counts": found[1]} if found else {})


def _here(folder: str) -> Path:
    return storage.fetch_folder(folder).resolve()


def _name(folder: Path, trained: list[tuple[str, int]]) -> str:
    from cliprd import manifest

    settings = manifest.read(folder, stage="distill").params["distill"]
    trained.append((settings["method"], settings["seed"]))
    return f"{settings['method']}-{settings['seed']}"


def _benchmarked(folder: Path) -> str:
    from cliprd import manifest

    manifest.read(folder, stage="benchmark")
    model = json.loads((folder / "results.json").read_text(encoding="utf-8"))["model"]
    if model["method"] is None:
        raise InputError(f"{folder} is the benchmark of a teacher, not of a student.", "Check the pipeline's wiring.")
    return f"{model['method']}-{model['seed']}"


def _whole_numbers(value: Any) -> Any:
    """KFP keeps every number as a double, so 5 comes back as 5.0; the schema takes whole numbers for whole ones."""
    if isinstance(value, Mapping):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _end(error: CliprdError) -> NoReturn:
    print("cliprd: error: " + " ".join(str(error).split()), file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)
