"""Embeds a task's images and texts once; both protocols, fidelity and later comparisons use the result.

Threads decode the next images while the model embeds a batch; distinct texts are embedded once, shortest first. All is
float32 and in an order that depends on the task alone, so equal inputs give equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprd import progress
from cliprd.benchmark.prompts import Protocol, class_prompts, shortest_first, templates
from cliprd.benchmark.tasks import Task
from cliprd.benchmark.towers import Towers
from cliprd.data.augment import eval_view
from cliprd.data.images import BadImage, decode
from cliprd.errors import InputError
from cliprd.files import atomic_write, digest
from cliprd.machine import cores
from cliprd.models.image_spec import ImageSpec
from cliprd.parallel import ordered_map

Embeddings = dict[str, NDArray[np.float32]]


def embed(towers: Towers, task: Task, protocols: Sequence[Protocol], *, batch_size: int) -> Embeddings:
    """Embed a task.

    Returns:
        float32, L2-normalised: `image` `[n, dim]`; for classification `class.<protocol>` `[C, dim]`, each class the
        normalised mean of its normalised prompts; for captions `text` `[all captions, dim]` in the task's order. Where
        the student has projections to the teacher's width, `projected.<name>` of each as well, `[.., teacher dim]`.

    Raises:
        InputError: an image cannot be decoded, or the model gives values that are not finite.
    """
    with progress.bar(total=len(task), unit="img", desc=f"{task.name} images", leave=False) as bar:
        image = _stack([towers.images(batch) for batch in _batches(task, towers.spec, batch_size, bar)])
    if task.captions:
        captions = [caption for captions in task.captions for caption in captions]
        embeddings = {"image": image, "text": _embed_captions(towers, captions, batch_size, task.name)}
    else:
        embeddings = {"image": image, **_embed_classes(towers, task, protocols, batch_size)}
    named: Embeddings = {}
    for name, variants in embeddings.items():
        for variant, rows in zip(("", "projected."), variants, strict=False):
            if not np.isfinite(rows).all():
                raise InputError(
                    f"Task {task.name}: {towers.id} gives embeddings that are not finite ({name}).",
                    "Its weights are damaged or its training diverged; train it again.",
                )
            named[variant + name] = rows
    return named


def _batches(task: Task, spec: ImageSpec, size: int, bar: Any) -> Iterator[Tensor]:
    """uint8 `[B, S, S, 3]`, in order; threads decode at most two batches ahead."""

    def view(number: int, data: bytes) -> NDArray[np.uint8]:
        try:
            return eval_view(decode(data), spec)
        except BadImage as error:
            raise InputError(
                f"Task {task.name}: image '{task.keys[number]}' cannot be used: {error}.",
                f"Repair or remove it in {task.folder}; a score over fewer images would be of another test set.",
            ) from error

    ahead = ordered_map(lambda image: view(*image), task.images(), workers=min(8, cores()), ahead=size)
    with contextlib.closing(ahead) as views:
        while batch := list(itertools.islice(views, size)):
            bar.update(len(batch))
            yield torch.from_numpy(np.stack(batch))


def _text_batches(texts: Sequence[str], size: int, what: str) -> Iterator[tuple[int, Sequence[str]]]:
    with progress.bar(total=len(texts), unit="text", desc=what, leave=False) as bar:
        for start in range(0, len(texts), size):
            batch = texts[start : start + size]
            yield start, batch
            bar.update(len(batch))


def _embed_captions(towers: Towers, captions: Sequence[str], size: int, name: str) -> tuple[NDArray[np.float32], ...]:
    texts = shortest_first(set(captions))
    index = {text: i for i, text in enumerate(texts)}
    rows = np.array([index[caption] for caption in captions])
    distinct = _stack([towers.texts(batch) for _, batch in _text_batches(texts, size, f"{name} captions")])
    return tuple(variant[rows] for variant in distinct)


def _embed_classes(
    towers: Towers, task: Task, protocols: Sequence[Protocol], size: int
) -> dict[str, tuple[NDArray[np.float32], ...]]:
    """Sums prompts into their classes batch by batch, so memory grows with the classes, not with the prompts."""
    prompts = class_prompts(task.classnames, {protocol: templates(task, protocol) for protocol in protocols})
    sums: list[NDArray[np.float64]] = []
    for start, batch in _text_batches(prompts.texts, size, f"{task.name} prompts"):
        first, last = np.searchsorted(prompts.text, [start, start + len(batch)])
        edges = slice(int(first), int(last))
        for i, rows in enumerate(towers.texts(batch)):
            rows64 = rows.cpu().numpy().astype(np.float64)
            if i == len(sums):
                sums.append(np.zeros((prompts.groups, rows64.shape[1])))
            share = prompts.weight[edges, None] * rows64[prompts.text[edges] - start]
            np.add.at(sums[i], prompts.group[edges], share)
    means = [(s / np.maximum(np.linalg.norm(s, axis=1, keepdims=True), 1e-12)).astype(np.float32) for s in sums]
    classes = len(task.classnames)
    return {
        f"class.{protocol}": tuple(mean[p * classes : (p + 1) * classes] for mean in means)
        for p, protocol in enumerate(protocols)
    }


def _stack(batches: Iterable[tuple[Tensor, ...]]) -> tuple[NDArray[np.float32], ...]:
    return tuple(torch.cat([part.cpu() for part in parts]).numpy() for parts in zip(*batches, strict=True))


def save(path: Path, embeddings: Embeddings) -> None:
    """Write atomically, with a digest of the content by which `load` detects damage."""
    body = {name: np.ascontiguousarray(rows) for name, rows in embeddings.items()}
    with atomic_write(path) as file:
        file.write(safetensors.numpy.save(body, metadata={"content": content_digest(body)}))


def load(path: Path) -> Embeddings | None:
    """What `save` wrote, or None if the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            recorded = (file.metadata() or {}).get("content")
            embeddings = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, safetensors.SafetensorError):
        return None
    return embeddings if recorded == content_digest(embeddings) else None


def content_digest(arrays: Embeddings) -> str:
    """sha256 of names, shapes and bytes."""
    parts = {
        name: [list(rows.shape), str(rows.dtype), hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()]
        for name, rows in arrays.items()
    }
    return digest(parts)


def embed_once(path: Path, task: Task, protocols: Sequence[Protocol], towers: Towers, *, batch_size: int) -> Embeddings:
    """The embeddings in `path` if an earlier run completed them; else compute and write them."""
    embeddings = load(path)
    if embeddings is None:
        embeddings = embed(towers, task, protocols, batch_size=batch_size)
        save(path, embeddings)
    return embeddings
