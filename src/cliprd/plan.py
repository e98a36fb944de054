"""`cliprd plan`: reports shapes, parameters, memory and operations of a configuration without training it.

Architectures are built with random weights, so nothing is downloaded; a batch of two is run through student and loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from cliprd import storage
from cliprd.benchmark.cost import cost
from cliprd.data.count import Estimate, PairCount
from cliprd.distill.division import Division
from cliprd.distill.objective import build_loss, resolve_weights
from cliprd.models import weights as weights_files
from cliprd.models.open_clip_encoder import OpenClipEncoder
from cliprd.models.plugin import plugin_of
from cliprd.models.pretrained import ResolvedTeacher, cached
from cliprd.models.student import (
    build_student,
    encode_image_features,
    encode_text_features,
    student_config,
    student_spec,
    tokenize,
)
from cliprd.models.teacher import keep_embedding_towers, untrained
from cliprd.names import visible
from cliprd.params import Params

BACKWARD = 3  # forward and backward cost about three forward passes
DISTINCT_MATRICES = 6  # N x N logit matrices of all terms together; see losses.combined


def plan(params: Params, pairs: PairCount) -> str:
    """The plan as text.

    Args:
        params: any valid tree.
        pairs: size of the training set; if unknown, the cost is omitted.

    Raises:
        ParamsError: an architecture or a tag is unknown, does not fit, or leaves a choice open.
        InputError: the teacher's weights are missing, damaged, or of another architecture.
        RetryableError: a tokenizer or a text tower's config is not on this machine and could not be downloaded.
    """
    return "\n".join(map(visible, _lines(params, pairs))) + "\n"


def _lines(params: Params, pairs: PairCount) -> Iterator[str]:
    distill = params.distill
    model = build_student(params.student, seed=distill.seed)
    student = OpenClipEncoder(model, student_config(params.student), student_spec(model, params.student))
    student_cost = cost(student)
    teacher, source, state = _teacher(params)
    teacher_dim = teacher.dim if teacher else plugin_of(params.teacher.name).dim(params.teacher.own_settings)
    teacher_cost = cost(teacher) if teacher else None

    yield f"student  {_tower(student)}"
    yield f"         {_cost(student_cost)}"
    yield f"teacher  {params.teacher.name}, embeddings of {teacher_dim}" + (f", {_tower(teacher)}" if teacher else "")
    if teacher_cost:
        yield f"         {_cost(teacher_cost)}"
    for line in [state, source.line()] if source else []:
        yield f"         {line}"

    loss = build_loss(distill, student.dim, teacher_dim)
    weights, mode = resolve_weights(distill)
    terms = _try(student, loss, teacher_dim)
    projections = sum(p.numel() for p in loss.parameters())
    yield f"method   {distill.method} (scale mode {mode}): " + ", ".join(
        f"{name} {value:.10g}" for name, value in weights.named().items() if value
    )
    yield f"         terms {', '.join(terms)}; {projections:,} parameters of the loss itself"
    matrix = distill.batch_size**2 * 4 / 2**20
    rows = f"{distill.chunk_size} rows at a time" if distill.chunk_size else "all rows at a time"
    yield f"batch    {distill.batch_size} pairs; {DISTINCT_MATRICES} logit matrices of {matrix:,.1f} MiB, {rows}"

    if pairs.number is None:
        yield f"data     unknown number of pairs: {pairs.where}"
        yield "cost     unknown: give the number of pairs with --samples"
    else:
        estimated = isinstance(pairs, Estimate)
        yield f"data     {'about ' if estimated else ''}{pairs.number:,} pairs, {pairs.where}"
        if estimated:
            yield "         what follows is computed from this estimate; `prepare` counts the pairs"
        yield from _costs(params, pairs.number, teacher_dim, student_cost, teacher_cost)


def _costs(
    params: Params, count: int, teacher_dim: int, student_cost: dict[str, int], teacher_cost: dict[str, int] | None
) -> Iterator[str]:
    distill, views = params.distill, params.cache.views
    steps = Division(count, distill.batch_size).steps * distill.epochs
    size = count * (views + 1) * teacher_dim * 2 / 2**30
    yield f"cache    {size:,.2f} GiB in float16: {views} view(s) and one caption a pair"
    yield f"training {distill.epochs} epochs, {steps:,} steps, warm-up {distill.warmup_steps:,}"
    train = count * distill.epochs * BACKWARD * 2 * (student_cost["image_macs"] + student_cost["text_macs"])
    yield f"         {train / 1e15:,.1f} PFLOP for the student"
    if teacher_cost:
        once = count * 2 * (views * teacher_cost["image_macs"] + teacher_cost["text_macs"])
        live = count * distill.epochs * 2 * (teacher_cost["image_macs"] + teacher_cost["text_macs"])
        yield f"         {once / 1e15:,.1f} PFLOP for the teacher, once, into the cache; live: {live / 1e15:,.1f}"
        yield f"         {(train + live) / (train + once):.1f} times less work in all than with a live teacher"


def _teacher(params: Params) -> tuple[OpenClipEncoder | None, ResolvedTeacher | None, str]:
    """The teacher's architecture with random weights, the source of its weights, and a line on their state.

    Weights that are on this machine are compared with the architecture, by names and shapes. None for a plug-in's,
    which is not an open_clip model.
    """
    if not params.teacher.of_open_clip:
        return None, None, ""
    source, model = untrained(params.teacher)
    path, state = None, "weights are in S3: checked when they are loaded"
    if source.tag:
        path = cached(source)
        state = f"weights are on this machine: {path}" if path else "weights will be downloaded from open_clip's hub"
    elif not storage.is_s3(source.weights):
        path, state = Path(source.weights), "weights fit the architecture"
    if path is not None:
        weights_files.check(model, path, arch=source.arch, resize=bool(source.tag))
    keep_embedding_towers(model)
    return OpenClipEncoder(model, source.config, source.image), source, state


def _try(student: OpenClipEncoder, loss: torch.nn.Module, teacher_dim: int) -> list[str]:
    """Names of the loss terms of a batch of two."""
    size = student.image.size
    with torch.no_grad():
        image = encode_image_features(student.model, torch.zeros(2, 3, size, size))
        text = encode_text_features(student.model, tokenize(student.model_cfg, ["a cat", "a dog"]))
        target = torch.nn.functional.normalize(torch.ones(2, teacher_dim), dim=-1)
        scale = torch.tensor(student.logit_scale)
        return list(loss(image, text, scale, target, target, scale))


def _tower(encoder: OpenClipEncoder) -> str:
    text = encoder.model_cfg["text_cfg"]
    size = encoder.image.size
    return f"image {size}x{size} -> {encoder.dim}, text of {text.get('context_length', 77)} tokens -> {encoder.dim}"


def _cost(values: dict[str, int]) -> str:
    return (
        f"{values['image_parameters'] / 1e6:.2f} M image and {values['text_parameters'] / 1e6:.2f} M text parameters; "
        f"{values['image_macs'] / 1e9:.3f} GMACs an image, {values['text_macs'] / 1e9:.3f} a full text"
    )
