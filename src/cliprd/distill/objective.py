"""From `distill` parameters to the loss: the method's weights, overrides over them, the scale mode."""

from __future__ import annotations

import dataclasses

import torch

from cliprd.distill import terms
from cliprd.errors import ParamsError
from cliprd.losses import DistillationLoss, LossWeights, method_weights
from cliprd.params import Distill, ScaleMode, parse_method


def resolve_weights(distill: Distill) -> tuple[LossWeights, ScaleMode]:
    """`distill.weights` over the method's own; the scale mode of the method's suffix over `distill.scale_mode`.

    Raises:
        ParamsError: an extra term has a name that is taken.
    """
    name, mode = parse_method(distill.method)
    overrides = distill.weights.model_dump(exclude_none=True)
    try:
        return dataclasses.replace(method_weights(name), **overrides), mode or distill.scale_mode
    except ValueError as error:  # the name of an extra term; the schema has looked at the rest
        raise ParamsError(f"distill.weights.extra: {error}.") from error


def build_loss(distill: Distill, student_dim: int, teacher_dim: int) -> DistillationLoss:
    """The loss of a training; equal seeds give equal projections, the global generator stays as it was.

    Raises:
        ParamsError: all weights are 0, or an extra term is not registered.
    """
    weights, scale_mode = resolve_weights(distill)
    if not any(weights.named().values()):
        raise ParamsError("distill.weights leaves no term of the loss.", "Give at least one term a weight above 0.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(distill.seed)
        return DistillationLoss(
            student_dim,
            teacher_dim,
            weights=weights,
            scale_mode=scale_mode,
            project_task=distill.project_task,
            chunk_size=distill.chunk_size,
            terms=terms.functions(distill),
        )
