"""Watches that a training stays among the finite numbers, without making a GPU wait at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cliprd.errors import DivergedError
from cliprd.formatting import figure

LEARNED = ("cross_scale", "image_scale", "text_scale")


class FiniteCheck:
    """Collects the numbers of each step on the device; `check` fetches and judges them all at once.

    Args:
        names: of the numbers handed to `add`, in order: terms, scales, `grad_norm`.
        max_scale: bound of the learned scales, None where they are clamped by definition (`exp`).
        agree: makes the numbers the same on all ranks before they are judged, so that all go on or all stop.
    """

    def __init__(
        self, names: Sequence[str], *, max_scale: float | None, agree: Callable[[Tensor], Tensor] = lambda table: table
    ) -> None:
        self._names, self._max_scale, self._agree = tuple(names), max_scale, agree
        self._pending: list[tuple[int, Tensor]] = []

    def add(self, step: int, numbers: Sequence[Tensor]) -> None:
        """Numbers of a step, 0-dimensional, still on their device."""
        self._pending.append((step, torch.stack([n.detach().float() for n in numbers])))

    def check(self, last_checkpoint: Path | None) -> dict[str, float]:
        """Judge all steps since the last check; the newest step's numbers by name.

        Raises:
            DivergedError: names the first step that went wrong, what went wrong in it and the last good checkpoint.
        """
        table = self._agree(torch.stack([numbers for _, numbers in self._pending])).tolist()
        values: dict[str, float] = {}
        for (step, _), line in zip(self._pending, table, strict=True):
            values = dict(zip(self._names, line, strict=True))
            if (what := self._wrong(values)) is not None:
                kept = f"The last good checkpoint is kept: {last_checkpoint}." if last_checkpoint else ""
                raise DivergedError(
                    f"Training diverged at step {step}: {what}.{' ' + kept if kept else ''}",
                    "Lower distill.lr, lengthen distill.warmup_steps, or set distill.clip_grad_norm.",
                )
        self._pending.clear()
        return values

    def _wrong(self, values: Mapping[str, float]) -> str | None:
        for name, value in values.items():
            if not math.isfinite(value):
                kind = "the gradient norm" if name == "grad_norm" else f"'{name}'"
                return f"{kind} is {value}"
            if self._max_scale is not None and name in LEARNED and abs(value) > self._max_scale:
                return f"the learned '{name}' is {figure(value)}, beyond distill.max_scale = {self._max_scale:g}"
        return None
