"""cliprd as a library: plain functions over what the stages use. `cliprd` itself gives them lazily."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cliprd import params as parameters
from cliprd import plugins, storage
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.benchmark.score import score_task
from cliprd.benchmark.task_set import fetch_tasks
from cliprd.benchmark.towers import Towers
from cliprd.data.shards import ShardSet
from cliprd.errors import ParamsError
from cliprd.models.encoder import Encoder
from cliprd.models.load import load_encoder
from cliprd.models.plugin import plugin_of
from cliprd.models.teacher import build_teacher
from cliprd.params import Params
from cliprd.teacher_cache import TeacherCache

Folder = str | Path


def open_shards(folder: Folder) -> ShardSet:
    """The shards in a folder of `cliprd prepare`, here or in S3, checked against its manifest.

    Returns:
        `shards` (name and samples of each), `samples`, `read(shard)` → `Sample(key, extension, image, captions)`.

    Raises:
        InputError: unfinished, damaged (the file is named), or a folder of another stage.
    """
    return ShardSet.open(storage.parse(str(folder)))


def open_teacher_cache(folder: Folder, shards: ShardSet | Folder) -> TeacherCache:
    """The teacher cache in a folder of `cliprd cache`, here or in S3, checked: it must embed these very shards.

    Views and augmentation are those of its manifest.

    Returns:
        `dim`, `views`, `logit_scale` (exp'd), `teacher`, `augmentation`, and `read(shard)` → `Rows(image, text,
        captions)`: float16 `[n, views, dim]` and `[n, most captions, dim]`, L2-normalised but for rounding, and
        int32 `[n]`; row i is sample i of the shard.

    Raises:
        InputError: unfinished, damaged (the file is named), or made of other shards.
    """
    return TeacherCache.open(storage.parse(str(folder)), _shards(shards))


def load_teacher(
    name: str | Path, *, settings: Mapping[str, Any] | None = None, device: torch.device | None = None
) -> Encoder:
    """A frozen teacher.

    Args:
        name: `open_clip:<architecture>:<pretrained tag or file>`, the name of a registered plug-in that needs no
            training, or a folder of `cliprd teacher`, here or in S3. A plug-in's name comes before a folder's; a Path
            is always a folder.
        settings: of a plug-in that is named; a folder has its own.
        device: where to put the weights; None: the CPU.

    Returns:
        `encode_images` (`[B, 3, S, S]`, normalised as `image` says) and `encode_texts` (B strings), both → float32
        `[B, dim]`, L2-normalised; `logit_scale`, exp'd.

    Raises:
        ParamsError: no such teacher, or a plug-in's that is trained: give its folder.
        InputError: the folder is unfinished or damaged, or its weights have changed. RetryableError: a download failed.
    """
    device = device or torch.device("cpu")
    if isinstance(name, str) and name.startswith("open_clip:"):
        section = parameters.validate({"teacher": {"name": name}}, where="load_teacher").teacher
        return build_teacher(section, device=device)
    if isinstance(name, str) and name in plugins.teachers:
        plugin = plugin_of(name)
        if plugin.train is not None:
            raise ParamsError(f"The teacher '{name}' is trained on pairs.", "Run `cliprd teacher` and give its folder.")
        return plugin.load(None, dict(settings or {}), device)
    if isinstance(name, str) and plugins.NAME.fullmatch(name) and not Path(name).exists():
        raise plugins.teachers.unknown(name)
    return load_encoder(fetch_folder(storage.parse(str(name))), Params(), device=device)


def distill(
    params: Params | Mapping[str, Any] | Folder, shards: ShardSet | Folder, cache: TeacherCache | Folder, output: Folder
) -> Manifest:
    """Train a student as `cliprd distill` does: resumable, checked, on several processes where `params` say so.

    Args:
        params: the tree, a mapping of its sections, or a params.yaml.
        shards, cache: opened, or their folders.
        output: folder of the student, here or in S3; `load_student` opens it.

    Returns:
        The manifest; `facts["final"]` has the last values of the loss terms.

    Raises:
        As `cliprd.stages.distill.run`.
    """
    from cliprd.stages import distill as stage

    inputs = {"shards": _place(shards), "cache": _place(cache)}
    return stage.run(_params(params), inputs, storage.parse(str(output)))


def evaluate(
    model: Encoder | Folder, tasks: Folder, *, names: Sequence[str] | None = None, protocol: str = "standard"
) -> dict[str, dict[str, dict[str, Any]]]:
    """Zero-shot scores as `cliprd benchmark` computes them.

    Args:
        model: an `Encoder` (`load_student`, `load_teacher`), or a folder of `cliprd distill` or `cliprd teacher`.
        tasks: folder of tasks in CLIP_benchmark's WebDataset layout, here or in S3.
        names: tasks to score; None: all. Those that cannot be scored are named on stderr.
        protocol: `standard` or `paper`.

    Returns:
        task → metric → {"value", "low", "high", "n", "confidence", ...}; shares, not percent.

    Raises:
        ParamsError: an unknown task or protocol. InputError: a task or the model is missing or damaged.
    """
    section = {"tasks": str(tasks), "names": None if names is None else list(names), "protocols": [protocol]}
    settings = parameters.validate({"benchmark": section}, where="evaluate").benchmark
    encoder = load_encoder(fetch_folder(storage.parse(str(model))), Params()) if isinstance(model, Folder) else model
    found = fetch_tasks(settings)
    for name, reason in found.left_out.items():
        print(f"cliprd: task {name} is left out: {reason}.", file=sys.stderr)
    scores = {}
    with tempfile.TemporaryDirectory(prefix="cliprd-evaluate-") as folder:
        for task in found.tasks:
            entry, _ = score_task(task, Towers(encoder), settings, None, Path(folder))
            scores[task.name] = entry["protocols"][protocol]["scores"]
    return scores


def _shards(shards: ShardSet | Folder) -> ShardSet:
    return shards if isinstance(shards, ShardSet) else open_shards(shards)


def _place(opened: ShardSet | TeacherCache | Folder) -> storage.Location:
    return storage.parse(str(opened)) if isinstance(opened, Folder) else opened.folder


def _params(params: Params | Mapping[str, Any] | Folder) -> Params:
    if isinstance(params, Params):
        return params
    return parameters.load(Path(params)) if isinstance(params, Folder) else parameters.validate(params, where="params")
