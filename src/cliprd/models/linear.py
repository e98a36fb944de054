"""A linear layer by oneDNN on a CPU, which on AMD multiplies float32 twice as fast as torch's default, MKL.

Equal to `torch.nn.functional.linear` up to rounding, forward and backward.

oneDNN compiles and caches a kernel (2 ms, 0.5 MB) for every new number of rows. So small inputs use torch's linear, and
callers with varying numbers of rows round them with `round_rows` or `few_sizes`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Not public in torch; if it is missing, on a GPU or in another precision, torch's linear is used.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]

_FEWEST = 256  # rows from which it is used


def round_rows(rows: int) -> int:
    """Round `rows` up to one of 16 sizes an octave, multiples of 32 at least: by at most a 16th for large inputs."""
    step = max(32, 1 << max(0, rows.bit_length() - 5))
    return -(-rows // step) * step


def few_sizes(count: int, size: int) -> list[int]:
    """Divide `count` into batches of `size`, and the remainder into powers of two, largest first."""
    left = count % size
    return [size] * (count // size) + [1 << bit for bit in reversed(range(left.bit_length())) if left >> bit & 1]


def linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """`x @ weightᵀ + bias`, `[T, O]`, differentiable once."""
    if (
        _ONEDNN is None
        or x_TI.shape[0] < _FEWEST
        or x_TI.device.type != "cpu"
        or not x_TI.dtype == weight_OI.dtype == torch.float32
        or torch.is_autocast_enabled("cpu")
    ):
        return torch.nn.functional.linear(x_TI, weight_OI, bias_O)
    out: Tensor = _Linear.apply(x_TI, weight_OI, bias_O)  # type: ignore[no-untyped-call]
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        want_x, want_weight, want_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.T) if want_x else None,
            _product(grad.T, x.T) if want_weight else None,
            grad.sum(dim=0) if want_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
    return out
