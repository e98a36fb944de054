"""AdamW for student and loss; only matrices get weight decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cliprd.params import Distill


def named_parameters(model: nn.Module, loss: nn.Module) -> dict[str, nn.Parameter]:
    """All trainable parameters, `student.*` and `loss.*`, in a fixed order."""
    modules = {"student": model, "loss": loss}
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def decays(parameter: Tensor) -> bool:
    """Matrices decay; gains, biases and scales (fewer than two dimensions) do not."""
    return parameter.ndim >= 2


def build_optimizer(parameters: Iterable[nn.Parameter], distill: Distill) -> torch.optim.AdamW:
    """Fused AdamW: one pass over the memory of parameters, gradients and moments."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if decays(p)], "weight_decay": distill.weight_decay},
        {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=distill.lr,
        betas=(distill.beta1, distill.beta2),
        eps=distill.eps,
        fused=True,
    )
