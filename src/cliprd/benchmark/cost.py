"""Machine-independent cost of a model: parameters, and multiply-accumulates per image and per text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cliprd.models.encoder import Encoder, count_parameters

LONG_TEXT = "word " * 512  # longer than any context length, so every position is computed


def cost(encoder: Encoder) -> dict[str, int]:
    """`parameters`, `image_parameters`, `text_parameters`, `image_macs` of one image, `text_macs` of one full text.

    A full text fills the context, as in published figures. MACs are half of torch's count of FLOPs in products and
    convolutions.
    """
    size = encoder.image.size
    image = torch.zeros(1, 3, size, size, device=encoder.device)
    return {
        "parameters": encoder.parameters_count(),
        "image_parameters": count_parameters([encoder.visual_module]),
        "text_parameters": count_parameters([encoder.text_module]),
        # of the torch modules: an encoder may run another engine, or skip layers that no output needs
        "image_macs": _macs(lambda: encoder.visual_module(image)),
        "text_macs": _macs(lambda: encoder.text_module(encoder.tokens([LONG_TEXT]))),
    }


def _macs(call: Callable[[], Any]) -> int:
    # The counter cannot see into fused attention kernels; the plain ones do the same products.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2
