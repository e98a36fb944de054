"""Everything of one task: embeddings, outcomes, scores with intervals, fidelity to the teacher, examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cliprd.benchmark import fidelity, prompts
from cliprd.benchmark.embed import Embeddings, embed_once, load
from cliprd.benchmark.examples import write_examples
from cliprd.benchmark.multilabel import random_precision, rank_images
from cliprd.benchmark.prompts import Protocol
from cliprd.benchmark.retrieval import retrieve
from cliprd.benchmark.selection import select
from cliprd.benchmark.tasks import Task
from cliprd.benchmark.towers import Towers
from cliprd.benchmark.zeroshot import classify
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.params import Benchmark
from cliprd.statistics.bootstrap import Settings
from cliprd.statistics.outcomes import Outcomes

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


def bootstrap(section: Benchmark) -> Settings:
    """How a score's interval is resampled."""
    return Settings(section.bootstrap, section.confidence, section.seed)


def _scores(task: Task, result: Outcomes, section: Benchmark) -> dict[str, dict[str, Any]]:
    about = {"confidence": section.confidence, "precision": PRECISION}
    return {
        metric: {**interval, "n": len(result.values[metric]), **about}
        for metric, interval in result.scores(task.name, bootstrap(section)).items()
    }
