"""A linear layer on a CPU by oneDNN, which multiplies float32 twice as fast there as torch's own choice, MKL, on AMD.

Equal to `torch.nn.functional.linear` but for rounding, forward and backward.

oneDNN makes code for every new number of rows, which takes 2 ms and half a megabyte that it keeps. So few rows stay
with torch, and who multiplies ever other numbers of rows brings them to those of `round_rows` or of `few_sizes`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Torch has no public name for it; where it is missing, or on a GPU or in another precision, its own linear does.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]

_FEWEST = 256  # rows that it is given


def round_rows(rows: int) -> int:
    """The next of the numbers of rows to multiply: 16 an octave, so at most a 16th more, of 32 rows on."""
    step = max(32, 1 << max(0, rows.bit_length() - 5))
    return -(-rows // step) * step


def few_sizes(count: int, size: int) -> list[int]:
    """`count` in batches of `size`, what is left in powers of two, the largest first."""
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
