"""Device and precision of a training; `auto` is resolved once and then fixed."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from cliprd.errors import MachineError
from cliprd.machine import cores
from cliprd.params import Distill


@dataclass(frozen=True)
class Runtime:
    """Resolved device, and whether the towers run in bf16 autocast (the loss is float32 in any case)."""

    device: torch.device
    bf16: bool

    def autocast(self) -> torch.autocast:
        """For the towers' forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def resolve(distill: Distill) -> Runtime:
    """`auto`: a GPU if there is one, in bf16 if it supports it.

    Raises:
        MachineError: the requested device or precision is not available.
    """
    cuda = torch.cuda.is_available()
    if distill.device == "cuda" and not cuda:
        raise MachineError(
            "distill.device = cuda, but torch sees no GPU.", "Set distill.device to auto or cpu; see `cliprd doctor`."
        )
    device = torch.device("cuda" if cuda and distill.device != "cpu" else "cpu")
    supports_bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported()
    if distill.precision == "bf16" and not supports_bf16:
        raise MachineError("distill.precision = bf16, but this GPU has no bf16.", "Set distill.precision to fp32.")
    bf16 = distill.precision == "bf16" or (distill.precision == "auto" and device.type == "cuda" and supports_bf16)
    return Runtime(device, bf16)


def words(runtime: Runtime) -> str:
    """Device and precision as text."""
    precision = "bf16" if runtime.bf16 else "fp32"
    if runtime.device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, {precision}"
    return f"{platform.processor() or platform.machine()} CPU, {cores()} cores, {precision}"


def processes(distill: Distill) -> int:
    """How many processes share a batch on this machine; `auto`: one a visible GPU.

    Raises:
        MachineError: more than there are GPUs; or as `resolve`.
    """
    gpus = torch.cuda.device_count() if resolve(distill).device.type == "cuda" else 0
    if distill.processes == "auto":
        return max(1, gpus)
    if gpus and distill.processes > gpus:
        raise MachineError(
            f"distill.processes = {distill.processes}, but torch sees {gpus} GPU{'s' * (gpus > 1)}.",
            f"Set distill.processes to auto or to {gpus} at most.",
        )
    return distill.processes
