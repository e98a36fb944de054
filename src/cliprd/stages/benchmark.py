"""`benchmark`: zero-shot scores, fidelity to the teacher, cost and speed of one model.

Inputs: `model`, a folder of stage `teacher` or `distill`; optionally `reference`, the teacher's own benchmark folder,
whose embeddings are compared with (the teacher never runs again). Tasks come from `params.benchmark.tasks`.

Output: docs/formats.md has every file. All but `volatile/` is the same bytes for the same inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cliprd import files, lineage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.benchmark import fidelity, prompts, speed
from cliprd.benchmark.cost import cost
from cliprd.benchmark.embed import Embeddings, embed_once, load
from cliprd.benchmark.examples import write_examples
from cliprd.benchmark.multilabel import random_precision, rank_images
from cliprd.benchmark.prompts import Protocol
from cliprd.benchmark.retrieval import retrieve
from cliprd.benchmark.selection import select
from cliprd.benchmark.task_folders import versions as task_versions
from cliprd.benchmark.task_set import TaskSet, fetch_tasks
from cliprd.benchmark.tasks import Task
from cliprd.benchmark.towers import Towers, read_projections
from cliprd.benchmark.zeroshot import classify
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.models.encoder import Encoder
from cliprd.models.load import load_encoder
from cliprd.models.plugin import code_in
from cliprd.params import Benchmark, Params
from cliprd.report import standing, verdicts
from cliprd.report.table import left_out
from cliprd.statistics.bootstrap import Settings
from cliprd.statistics.outcomes import Outcomes, primary
from cliprd.storage import Location

PRECISION = "fp32"


@dataclass(frozen=True)
class Reference:
    """The teacher's benchmark folder and what it says of itself."""

    folder: Path
    results: Mapping[str, Any]
    fingerprint: str

    def embeddings(self, task: Task) -> Embeddings | None:
        """The teacher's embeddings of `task`, or None where it was not benchmarked on it.

        Raises:
            InputError: it was benchmarked on another version of the task, or the file is damaged.
        """
        entry = self.results["tasks"].get(task.name)
        if entry is None:
            return None
        remedy = "Run `cliprd benchmark` of the teacher again (or `dvc repro`)."
        if entry["fingerprint"] != task.fingerprint:
            raise InputError(f"{self.folder}: the teacher saw another version of task '{task.name}'.", remedy)
        path = self.folder / "embeddings" / f"{task.name}.safetensors"
        if (found := load(path)) is None:
            raise InputError(f"{path} is missing or damaged.", remedy)
        return found


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


def score_task(
    task: Task, towers: Towers, section: Benchmark, reference: Reference | None, output: Path
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Everything of one task; writes its embeddings, outcomes and examples.

    Returns:
        Its part of results.json and its outcomes' tensors.
    """
    theirs = reference.embeddings(task) if reference is not None else None  # first: it may refuse
    path = output / "embeddings" / f"{task.name}.safetensors"
    embeddings = embed_once(path, task, section.protocols, towers, batch_size=section.batch_size)
    outcomes = {protocol: _outcomes(task, protocol, embeddings) for protocol in section.protocols}
    arrays: dict[str, NDArray[Any]] = {}
    for protocol, result in outcomes.items():
        arrays |= result.arrays(protocol)
    if task.classnames:
        arrays["labels"] = task.labels.astype(np.int32)
    else:
        arrays["caption_image"] = _owners(task).astype(np.int32)
    entry: dict[str, Any] = {
        "kind": task.kind,
        "fingerprint": task.fingerprint,
        "images": len(task),
        "classnames": list(task.classnames) or None,
        "captions": sum(map(len, task.captions)) or None,
        "chance": round(_chance(task), 6),
        "protocols": {p: _protocol(task, p, result, section) for p, result in outcomes.items()},
        "fidelity": None,
    }
    if reference is not None:
        entry["fidelity"], found = _fidelity(task, embeddings, theirs, section)
        arrays |= found
    body = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    with atomic_write(output / "outcomes" / f"{task.name}.safetensors") as file:
        file.write(safetensors.numpy.save(body))
    write_examples(output, task, embeddings, outcomes, seed=section.seed)
    return entry, body


def _standing(
    entries: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]], section: Benchmark
) -> dict[str, dict[str, Any]]:
    """Protocol → scores of the primary metrics, and whether they are above guessing."""
    found: dict[str, dict[str, Any]] = {}
    for protocol in section.protocols:
        scores = {t: primary(tensors[t], protocol, entry["kind"])[np.newaxis] for t, entry in entries.items()}
        found[protocol] = standing.of(scores, tensors, entries, protocol, _settings(section))
    return found


def _above(results: Mapping[str, Any]) -> dict[str, bool]:
    return {protocol: stands["above_guessing"]["mean"] for protocol, stands in results.get("standing", {}).items()}


def _verdict(stands: Mapping[str, Any], stage: str) -> str:
    above = stands["above_guessing"]["mean"]
    said = verdicts.standing(stands["mean"], stands["floor"]["mean"], above)
    nothing = "nothing to distil" if stage == "teacher" else "nothing to promote"
    return said if above else f"{nothing}: {said}"


def _settings(section: Benchmark) -> Settings:
    return Settings(section.bootstrap, section.confidence, section.seed)


def _outcomes(task: Task, protocol: Protocol, embeddings: Embeddings) -> Outcomes:
    if task.classnames:
        rank = rank_images if task.kind == "multilabel" else classify
        return rank(embeddings["image"], embeddings[f"class.{protocol}"], task.labels)
    if task.kind == "image_caption_selection":
        return select(embeddings["image"], embeddings["text"], _owners(task))
    counted = prompts.counted_captions(task, protocol)
    return retrieve(embeddings["image"], embeddings["text"][counted], _owners(task)[counted])


def _chance(task: Task) -> float:
    """What guessing would give of the primary metric."""
    if task.kind == "multilabel":
        return random_precision(len(task), task.labels.sum(axis=0))
    if task.kind == "image_caption_selection":
        return float(np.mean([1 / len(captions) for captions in task.captions]))
    return 1 / (len(task.classnames) or len(task))


def _owners(task: Task) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(task)), [len(captions) for captions in task.captions])


def _protocol(task: Task, protocol: Protocol, result: Outcomes, section: Benchmark) -> dict[str, Any]:
    scores = _scores(task, result, section)
    named = {metric: {**score, "protocol": protocol} for metric, score in scores.items()}
    if task.classnames:
        return {
            "templates": list(prompts.templates(task, protocol)),
            "template_source": "imagenet" if protocol == "paper" else "task",
            "captions": None,
            "scores": named,
        }
    captions = "first" if protocol == "paper" and task.kind == "retrieval" else "all"
    return {"templates": None, "template_source": None, "captions": captions, "scores": named}


def _fidelity(
    task: Task, embeddings: Embeddings, theirs: Embeddings | None, section: Benchmark
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    images = fidelity.sample(len(task), section.fidelity_samples, section.seed)
    if task.captions:
        key, texts = "text", prompts.first_captions(task)[images]
    else:
        key = f"class.{section.protocols[0]}"
        texts = fidelity.sample(len(task.classnames), section.fidelity_samples, section.seed)
    if theirs is None or key not in theirs:
        reason = "the reference was not benchmarked on this task" if theirs is None else f"the reference lacks {key}"
        return {"samples": 0, "texts": 0, "scores": {}, "undefined": {"all": reason}}, {}
    found = fidelity.compare(embeddings, theirs, text_key=key, images=images, texts=texts, paired=key == "text")
    entry = {
        "samples": len(images),
        "texts": len(texts),
        "scores": _scores(task, found.outcomes, section),
        "undefined": dict(found.undefined),
    }
    return entry, found.outcomes.arrays("fidelity")


def _scores(task: Task, result: Outcomes, section: Benchmark) -> dict[str, dict[str, Any]]:
    about = {"confidence": section.confidence, "precision": PRECISION}
    return {
        metric: {**interval, "n": len(result.values[metric]), **about}
        for metric, interval in result.scores(task.name, _settings(section)).items()
    }


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
