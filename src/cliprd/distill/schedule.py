"""Learning rate: linear warm-up, then half a cosine down to 0 (open_clip's `cosine_lr`)."""

from __future__ import annotations

import math


def learning_rate(step: int, *, base: float, warmup: int, total: int) -> float:
    """Rate of optimiser step `step`, counted from 0.

    With `warmup` >= `total` the training ends while it still warms up.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    return base * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
