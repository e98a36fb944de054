"""Sections `distill` and `ablation`."""

from __future__ import annotations

import typing
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cliprd.names import shortened
from cliprd.params.base import Count, Few, Many, Once, Positive, Rate, Rows, Section, Seed, Weight, resolved

METHODS = ("baseline", "clip_kd", "vrd", "xrd", "clip_rd")
ScaleMode = Literal["raw", "exp"]


def parse_method(spec: str) -> tuple[str, ScaleMode | None]:
    """`clip_rd-exp` → ("clip_rd", "exp"); without a suffix the scale mode is None (`distill.scale_mode` applies)."""
    name, dash, mode = spec.partition("-")
    if name not in METHODS or (dash and mode not in ("raw", "exp")):
        raise ValueError(
            f"'{shortened(spec)}' is no method: allowed are {', '.join(METHODS)}, each optionally with -raw or -exp"
        )
    return name, typing.cast(ScaleMode, mode) if dash else None


def _method(spec: str) -> str:
    parse_method(spec)
    return spec


Method = Annotated[str, AfterValidator(_method)]


class Weights(Section):
    """Weights of the loss terms; null takes the method's own (official, or 0 where the method lacks the term)."""

    task: Weight | None = None
    hrd: Weight | None = None
    icl: Weight | None = None
    fd: Weight | None = None
    vrd: Weight | None = None
    vrd_ce: Weight | None = None
    xrd: Weight | None = None
    extra: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], Weight] = {}
    """Of terms that are not built in, by the name under which a package or a script has registered them
    (docs/library.md)."""

    def of_terms(self) -> dict[str, float]:
        """Extra terms with a weight above 0."""
        return {name: weight for name, weight in self.extra.items() if weight}


class Distill(Section):
    """Training of the student."""

    method: Method = "clip_rd-raw"
    """`baseline`, `clip_kd`, `vrd`, `xrd` or `clip_rd`, each optionally followed by `-raw` or `-exp` (scale_mode)."""
    seed: Seed = 0
    scale_mode: ScaleMode = "raw"
    """Multiply the relational logits by the learned scale itself (`raw`, the official code) or by its exponential
    (`exp`). A suffix of `method` overrides this; the resolved tree has the value in force."""
    weights: Weights = Weights()
    project_task: bool = False
    """True: task and hrd use projected embeddings, as the official multi-GPU code does."""
    chunk_size: Rows | None = None
    """Rows of a similarity matrix in memory at a time; null: all."""
    epochs: Many = 32
    micro_batch_size: Rows | None = None
    """Rows that a process embeds at a time, by gradient caching: equal gradients, and memory that does not grow with
    `batch_size`, at the cost of one more forward pass of the towers. null: all its rows."""
    batch_size: Annotated[Rows, Field(ge=2)] = 256
    """Pairs a step, at most, over all processes. An epoch is divided into batches whose sizes differ by at most one, so
    that every pair occurs once and no batch is tiny; a smaller set is one batch."""
    lr: Rate = 1e-3
    weight_decay: Weight = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    eps: Rate = 1e-6
    warmup_steps: Count = 100
    clip_grad_norm: Rate | None = 1.0
    max_scale: Rate = 100.0
    """A learned multiplier above this ends the training as diverged, except where it is clamped by definition."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast on a GPU, fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Few | Literal["auto"] = "auto"
    """Processes that share each batch, through torchrun: `auto` is one a visible GPU, or 1 on a CPU. `batch_size` is
    that of all processes together, each of which takes an equal part, so the training is the same on any number."""
    local_loss: bool = False
    """Each process computes only its own rows and columns of the similarity matrices, and the terms are summed: less
    work and memory from three processes on, with equal results."""
    shuffle_buffer: Positive = 20_000
    workers: Annotated[int, Field(ge=0, le=1024)] = 1
    """Threads that decode and crop ahead of the step."""
    checkpoint_every: Positive = 100
    """Steps between checkpoints."""
    log_every: Positive = 10
    """Steps between logged records."""

    @model_validator(mode="after")
    def _scale_of_method(self) -> Distill:
        """The resolved tree names the scale mode in force."""
        return resolved(self, scale_mode=parse_method(self.method)[1] or self.scale_mode)


class Ablation(Section):
    """The grid that `dvc repro` and the ablation pipeline train."""

    methods: Annotated[tuple[Method, ...], Field(min_length=1), Once] = (
        "baseline",
        "clip_kd",
        "clip_rd-raw",
        "clip_rd-exp",
    )
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once] = (0,)
