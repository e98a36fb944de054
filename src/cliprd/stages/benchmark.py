"""`benchmark`: zero-shot scores, fidelity to the teacher, cost and speed of one model.

Inputs: `model`, a folder of stage `teacher` or `distill`; optionally `reference`, the teacher's own benchmark folder,
whose embeddings are compared with (the teacher never runs again). Tasks come from `params.benchmark.tasks`.

Output: docs/formats.md has every file. All but `volatile/` is the same bytes for the same inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cliprd import files, lineage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.benchmark import speed
from cliprd.benchmark.cost import cost
from cliprd.benchmark.score import PRECISION, Reference, bootstrap, score_task
from cliprd.benchmark.task_folders import versions as task_versions
from cliprd.benchmark.task_set import TaskSet, fetch_tasks
from cliprd.benchmark.towers import Towers, read_projections
from cliprd.errors import InputError
from cliprd.models.encoder import Encoder
from cliprd.models.load import load_encoder
from cliprd.models.plugin import code_in
from cliprd.params import Benchmark, Params
from cliprd.report import standing, verdicts
from cliprd.report.table import left_out
from cliprd.statistics.outcomes import primary
from cliprd.storage import Location


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Benchmark `inputs["model"]`; with `inputs["reference"]` also its fidelity to that teacher.

    Raises:
        ParamsError: an unknown task.
        InputError: a task, the model or the reference is missing or damaged.
    """
    section = params.benchmark
    folder = fetch_folder(inputs["model"])
    model = manifest.verify(folder)
    if model.stage not in ("teacher", "distill"):
        raise InputError(
            f"{inputs['model']} was made by stage '{model.stage}': no model.", "Give a teacher's or a student's folder."
        )
    reference = _reference(fetch_folder(inputs["reference"])) if "reference" in inputs else None
    found = fetch_tasks(section)
    fingerprints = {"model": model.fingerprint}
    if reference is not None:
        fingerprints["reference"] = reference.fingerprint
    fingerprints |= {f"task:{task.name}": task.fingerprint for task in found.tasks}
    fingerprints |= {f"left_out:{name}": files.digest(why) for name, why in found.left_out.items()}
    shaping = {"benchmark": section.model_dump(mode="json", exclude={"tasks", "names"})}  # tasks are inputs
    code = ("cliprd.stages.benchmark", *code_in(model.stage, model.params))
    with Workspace(output, stage="benchmark", code=code, params=shaping, inputs=fingerprints) as work:
        return work.finished or _write(work, params, folder, model, found, reference)


def _write(
    work: Workspace, params: Params, folder: Path, model: Manifest, found: TaskSet, reference: Reference | None
) -> Manifest:
    section, tasks = params.benchmark, found.tasks
    encoder = load_encoder(folder, params)
    projections = read_projections(folder, encoder.device) if model.stage == "distill" else None
    towers = Towers(encoder, projections)
    entries, tensors = {}, {}
    for task in tasks:
        entries[task.name], tensors[task.name] = score_task(task, towers, section, reference, work.path)
        work.commit(f"embeddings/{task.name}.safetensors")
    stands = _standing(entries, tensors, section)
    results = {
        "schema": 2,
        "model": _describe(encoder, model),
        "reference": reference
        and {
            **_identity(reference.results),
            "fingerprint": reference.fingerprint,
            "above_guessing": _above(reference.results),
        },
        "precision": PRECISION,
        "bootstrap": {
            "resamples": section.bootstrap,
            "confidence": section.confidence,
            "seed": section.seed,
        },
        "cost": cost(encoder),
        "standing": stands,
        "tasks": entries,
        "left_out": dict(found.left_out),
    }
    files.write_json(work.path / "results.json", results)
    scores = {name: _compact(entry) for name, entry in entries.items()}
    files.write_json(work.path / "scores.json", scores)
    if section.speed:
        files.write_json(
            work.path / manifest.VOLATILE_DIR / "speed.json", speed.measure(encoder, batch_size=section.batch_size)
        )
    if lineage.NAME in model.files:
        versions = task_versions(section)
        lineage.write(work.path, lineage.with_scores(lineage.of(folder), scores, versions))
    facts: dict[str, Any] = {"model": encoder.id, "tasks": [task.name for task in tasks]}
    if found.left_out:
        facts["left_out"] = left_out(found.left_out)
    return work.finish(facts={**facts, "verdict": _verdict(stands[section.protocols[0]], model.stage)})


def _reference(folder: Path) -> Reference:
    found = manifest.verify(folder, stage="benchmark")
    return Reference(folder, json.loads((folder / "results.json").read_text(encoding="utf-8")), found.fingerprint)


def _standing(
    entries: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]], section: Benchmark
) -> dict[str, dict[str, Any]]:
    """Protocol → scores of the primary metrics, and whether they are above guessing."""
    found: dict[str, dict[str, Any]] = {}
    for protocol in section.protocols:
        scores = {t: primary(tensors[t], protocol, entry["kind"])[np.newaxis] for t, entry in entries.items()}
        found[protocol] = standing.of(scores, tensors, entries, protocol, bootstrap(section))
    return found


def _above(results: Mapping[str, Any]) -> dict[str, bool]:
    return {protocol: stands["above_guessing"]["mean"] for protocol, stands in results.get("standing", {}).items()}


def _verdict(stands: Mapping[str, Any], stage: str) -> str:
    above = stands["above_guessing"]["mean"]
    said = verdicts.standing(stands["mean"], stands["floor"]["mean"], above)
    nothing = "nothing to distil" if stage == "teacher" else "nothing to promote"
    return said if above else f"{nothing}: {said}"


def _compact(entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    parts = {**entry["protocols"], **({"fidelity": entry["fidelity"]} if entry["fidelity"] else {})}
    return {name: {m: score["value"] for m, score in part["scores"].items()} for name, part in parts.items()}


def _describe(encoder: Encoder, model: Manifest) -> dict[str, Any]:
    trained = model.params.get("distill", {}) if model.stage == "distill" else {}
    return {
        "id": encoder.id,
        "weights_sha256": encoder.weights_sha256,
        "stage": model.stage,
        "dim": encoder.dim,
        "logit_scale": round(encoder.logit_scale, 6),
        "tokenizer": encoder.tokenizer,
        "image": encoder.image.to_dict(),
        "method": trained.get("method"),
        "seed": trained.get("seed"),
    }


def _identity(results: Mapping[str, Any]) -> dict[str, str]:
    return {key: results["model"][key] for key in ("id", "weights_sha256")}
