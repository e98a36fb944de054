"""`teacher`: settle which teacher is distilled, and train the demo teacher's heads where it is that one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprd import files, progress
from cliprd.artifact import manifest
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.data.augment import eval_view, to_tensor
from cliprd.data.images import decode
from cliprd.data.shards import Sample, Shard, ShardSet
from cliprd.demo_teacher import aligned
from cliprd.demo_teacher.aligned import AlignedTeacher, Backbones
from cliprd.demo_teacher.train import Pairs, train_heads
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.models.encoder import resolve_device, state_sha256
from cliprd.models.identity import shaping, weights_version
from cliprd.models.image_spec import ImageSpec
from cliprd.models.teacher import build_teacher
from cliprd.parallel import ordered_map
from cliprd.params import Params
from cliprd.storage import Location

BATCH = 64
FEATURES = ".features"  # hidden, so no part of the manifest; removed when the stage is done


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write `teacher.json`, and for the demo teacher `heads.safetensors`.

    Args:
        params: `teacher` is used, and `distill.device` places the work.
        inputs: `shards`, the folder of `prepare`: what the demo teacher's heads are trained on.
        output: folder to write. Image features of whole shards that an interrupted run has left are used again.

    Raises:
        ParamsError, InputError, RetryableError: an open_clip teacher is unknown, damaged or cannot be fetched.
        EnvironmentError_: the demo teacher's packages are not installed.
    """
    device = resolve_device(params.distill.device)
    if params.teacher.name == "aligned":
        shards = ShardSet.open(inputs["shards"])
        section = {"teacher": shaping(params.teacher)}
        made_of = {"shards": shards.fingerprint}
        with Workspace(
            output,
            stage="teacher",
            code="cliprd.stages.teacher",
            params=section,
            inputs=made_of,
            resume_files=[FEATURES],
        ) as work:
            return work.finished or work.finish(facts=_train_aligned(params, shards, work, device))
    section = {"teacher": shaping(params.teacher)}
    version = weights_version(params.teacher.name)
    inputs_found = {"weights": version} if version else {}
    with Workspace(output, stage="teacher", code="cliprd.stages.teacher", params=section, inputs=inputs_found) as work:
        if work.finished:
            return work.finished
        teacher = build_teacher(params.teacher, device=device)
        for value in teacher.decisions:
            print(f"cliprd: teacher: {value}", file=sys.stderr)
        said = {**aligned.describe(teacher), "quick_gelu": teacher.quick_gelu, "decided_by": teacher.decided_by}
        files.write_json(work.path / aligned.CONFIG_FILE, {**said, "training": None})
        return work.finish(facts=said)


def _train_aligned(params: Params, shards: ShardSet, work: Workspace, device: torch.device) -> dict[str, Any]:
    settings, output = params.teacher.aligned, work.path
    if not shards.samples:
        raise InputError(f"{shards.folder} holds no pairs to train the teacher on.", "Look into its rejected.jsonl.")
    began = time.perf_counter()
    backbones = Backbones(device)
    spec = aligned.image_spec(settings.image_size)
    found = []
    for shard in progress.bar(shards.shards, desc="teacher features", unit="shard"):
        name = f"{FEATURES}/{shard.stem}.safetensors"
        found.append(_shard_features(shards, shard, output / name, backbones, spec))
        work.commit(name)
    captions = [sample.captions for shard in shards.shards for sample in shards.read(shard)]
    distinct = sorted({caption for several in captions for caption in several})
    texts = _text_features(distinct, output / FEATURES / "texts.safetensors", backbones)
    embedded = time.perf_counter()
    pairs = Pairs(
        pooled=torch.cat([features["pooled"] for features in found]),
        conse=torch.cat([features["conse"] for features in found]),
        captions=captions,
        distinct=distinct,
        texts=texts,
        rows=backbones.image.class_rows(),
        names=backbones.names_CW.cpu(),
    )
    heads, training = train_heads(pairs, settings)
    teacher = AlignedTeacher(backbones, heads, spec)
    aligned.save(teacher, heads, output, training)
    seconds = {"features": embedded - began, "training": time.perf_counter() - embedded}
    files.write_json(output / manifest.VOLATILE_DIR / "seconds.json", seconds)
    return {**aligned.describe(teacher), "training": training}


def _shard_features(
    shards: ShardSet, shard: Shard, path: Path, backbones: Backbones, spec: ImageSpec
) -> dict[str, Tensor]:
    """`pooled` `[n, 1, 1280]` and `conse` `[n, 1, 384]` of a shard's images as evaluation sees them."""
    if (found := _left(path, {"pooled": shard.samples, "conse": shard.samples})) is not None:
        return found

    def view(sample: Sample) -> NDArray[np.uint8]:
        return eval_view(decode(sample.image), spec)

    parts = [
        backbones.features(to_tensor(np.stack(batch), spec, backbones.device))
        for batch in _batches(ordered_map(view, shards.read(shard), ahead=2 * BATCH))
    ]
    pooled, conse = (torch.cat(column)[:, None].cpu() for column in zip(*parts, strict=True))
    return _keep(path, {"pooled": pooled, "conse": conse})


def _text_features(distinct: list[str], path: Path, backbones: Backbones) -> Tensor:
    """`[M, 384]` sentence embeddings."""
    if (found := _left(path, {"texts": len(distinct)})) is not None:
        return found["texts"]
    return _keep(path, {"texts": backbones.text(distinct).cpu()})["texts"]


def _batches(views: Iterator[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    batch: list[NDArray[np.uint8]] = []
    for view in views:
        batch.append(view)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _keep(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(tensors, {"sha256": state_sha256(tensors)}))
    return tensors


def _left(path: Path, rows: Mapping[str, int]) -> dict[str, Tensor] | None:
    """What an interrupted run of the same work left in `path`, if it is whole; else None, and it is made anew."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, safetensors.SafetensorError, json.JSONDecodeError):
        return None
    whole = {name: len(tensor) for name, tensor in tensors.items()} == dict(rows) and state_sha256(tensors) == expected
    return tensors if whole else None
