"""`distill`: train a student from shards and teacher cache, and leave a folder that plain open_clip loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from cliprd import manifest, tracking
from cliprd.data.shards import ShardSet
from cliprd.distill.checkpoint import Checkpoints
from cliprd.distill.history import last_row
from cliprd.distill.objective import resolve_weights
from cliprd.distill.record import Record
from cliprd.distill.train import Report, Trained, train
from cliprd.manifest import Manifest
from cliprd.models.encoder import count_parameters
from cliprd.models.onnx import export_onnx
from cliprd.models.student import save_student
from cliprd.params import Params, parse_method
from cliprd.storage import Location
from cliprd.teacher_cache import TeacherCache
from cliprd.workspace import Workspace

LOSS_FILE = "loss.safetensors"


def run_id(params: Params) -> str:
    """Name of the training: `<method>-<seed>`."""
    return f"{params.distill.method}-{params.distill.seed}"


def run(params: Params, inputs: Mapping[str, Location], output: Location, *, report: Report | None = None) -> Manifest:
    """Write the student: `open_clip_config.json`, `open_clip_model.safetensors`, `loss.safetensors` (learned scales and
    projections), `image.onnx`, `text.onnx`, `history.csv`.

    While it trains, `.checkpoint/` holds the last two checkpoints; a run that was killed goes on from the newest. Its
    parameters, inputs or code having changed, the Workspace clears the folder, checkpoints included.

    Args:
        params: `student`, `distill` and `augmentation` are used.
        inputs: `shards` (folder of `prepare`) and `cache` (folder of `cache`).
        output: folder to write.
        report: called with each logged record, beside MLflow.

    Raises:
        InputError: shards, cache or a checkpoint are damaged or do not belong together.
        ParamsError: the parameters make no training.
        DivergedError: training left the finite numbers; the last good checkpoint is kept.
    """
    shards = ShardSet.open(inputs["shards"])
    cache = TeacherCache.open(inputs["cache"], shards, params.augmentation)
    sections = params.model_dump(mode="json", include={"student", "distill", "augmentation"})
    fingerprints = {"shards": shards.fingerprint, "cache": cache.fingerprint}
    with Workspace(output, stage="distill", params=sections, inputs=fingerprints) as work:
        folder = work.path
        checkpoints = Checkpoints(folder)
        if work.finished:
            checkpoints.remove()  # where a kill came after the manifest
            return work.finished
        with tracking.training_run(params, name=run_id(params), folder=folder, tags=fingerprints) as tracked:
            trained = train(params, shards, cache, folder, _both(tracked, report))
        save_student(trained.model, params.student, folder)
        with manifest.atomic_write(folder / LOSS_FILE) as file:
            state = {name: tensor.contiguous() for name, tensor in trained.loss.state_dict().items()}
            file.write(safetensors.torch.save(state))
        export_onnx(trained.model, folder)
        written = work.finish(facts=_facts(params, trained, folder, fingerprints))
        checkpoints.remove()  # last: until the manifest stands, a rerun starts from them
        return written


def _both(first: Report, second: Report | None) -> Report:
    def report(record: Record) -> None:
        first(record)
        if second is not None:
            second(record)

    return report


def _facts(params: Params, trained: Trained, output: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    d = params.distill
    weights, scale_mode = resolve_weights(d)
    last = last_row(output)
    visual: nn.Module = trained.model.visual  # type: ignore[assignment]
    return {
        "run": run_id(params),
        "method": parse_method(d.method)[0],
        "scale_mode": scale_mode,
        "seed": d.seed,
        "weights": dataclasses.asdict(weights),
        "steps": trained.steps,
        "samples_seen": trained.steps * d.batch_size,
        "parameters": {
            "student": count_parameters([trained.model]),
            "image_tower": count_parameters([visual]),
            "loss": count_parameters([trained.loss]),
        },
        "final": {name: last[name] for name in ("loss", *trained.loss.term_names, "grad_norm")},
        "inputs": dict(inputs),
    }
