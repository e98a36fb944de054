"""Terms that users add: functions that name the tensors they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Term = Callable[..., Tensor]
INPUTS = (
    "student_image", "student_text", "projected_image", "projected_text", "teacher_image", "teacher_text",
    "student_scale", "teacher_scale",
)  # fmt: skip


def inputs_of(name: str, term: Term) -> tuple[str, ...]:
    """Which of `INPUTS` a term takes, by the names of its parameters.

    Raises:
        TypeError: it takes something else.
    """
    parameters = inspect.signature(term).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    wanted = [p.name for p in parameters if p.name in INPUTS and p.kind in kinds]
    others = [str(p) for p in parameters if p.name not in wanted and p.default is p.empty]
    if others or not wanted:
        what = f"takes '{others[0]}'" if others else "takes no tensor"
        raise TypeError(f"term '{name}' {what}: its parameters are among {', '.join(INPUTS)}")
    return tuple(wanted)


def evaluate(name: str, term: Term, tensors: Mapping[str, Tensor]) -> Tensor:
    """The term, a finite-precision scalar.

    Raises:
        TypeError: it returned something else.
    """
    value = term(**tensors)
    if not isinstance(value, Tensor) or value.ndim != 0 or not torch.is_floating_point(value):
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"term '{name}' returned {what}: a floating-point scalar is needed")
    return value
