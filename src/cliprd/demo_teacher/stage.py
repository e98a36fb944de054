"""The demo teacher's training on shards: features of the frozen backbones once, then the heads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprd import files, progress
from cliprd.artifact import manifest
from cliprd.data.augment import eval_view, to_tensor
from cliprd.data.images import decode
from cliprd.data.shards import Sample, Shard, ShardSet
from cliprd.demo_teacher import aligned
from cliprd.demo_teacher.aligned import AlignedTeacher, Backbones
from cliprd.demo_teacher.train import CaptionedFeatures, train_heads
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.models.encoder import state_sha256
from cliprd.models.image_spec import ImageSpec
from cliprd.models.plugin import RESUME, Commit
from cliprd.parallel import ordered_map
from cliprd.params import Aligned

BATCH = 64


def train(
    shards: ShardSet, output: Path, settings: Aligned, device: torch.device, commit: Commit
) -> tuple[AlignedTeacher, dict[str, float]]:
    """Write `heads.safetensors` and `teacher.json`; features of finished shards that a killed run has left are used.

    Returns:
        The teacher, and facts of its training.

    Raises:
        InputError: too few pairs. DivergedError: the loss became NaN. MachineError: a package is not installed.
    """
    if not shards.samples:
        raise InputError(f"{shards.folder} holds no pairs to train the teacher on.", "Look into its rejected.jsonl.")
    began = time.perf_counter()
    backbones = Backbones(device)
    spec = aligned.image_spec(settings.image_size)
    features = []
    for shard in progress.bar(shards.shards, desc="teacher features", unit="shard"):
        name = f"{RESUME}/{shard.stem}.safetensors"
        features.append(_shard_features(shards, shard, output / name, backbones, spec))
        commit(name)
    captions = [sample.captions for shard in shards.shards for sample in shards.read(shard)]
    distinct = sorted({caption for several in captions for caption in several})
    texts = _text_features(distinct, output / RESUME / "texts.safetensors", backbones)
    commit(f"{RESUME}/texts.safetensors")
    embedded = time.perf_counter()
    pairs = CaptionedFeatures(
        pooled=torch.cat([part["pooled"] for part in features]),
        conse=torch.cat([part["conse"] for part in features]),
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
    return teacher, training


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
