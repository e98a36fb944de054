"""The values in force in a training, for parameters that are `auto` or depend on others."""

from __future__ import annotations

from typing import Any

from cliprd.distill.device import Runtime
from cliprd.distill.division import Division
from cliprd.distill.objective import resolve_weights
from cliprd.params import Distill


def effective(
    distill: Distill, *, samples: int, student_dim: int, teacher_dim: int, runtime: Runtime
) -> dict[str, dict[str, Any]]:
    """Section → key → value in force; None: the parameter had no effect. `manifest.in_force` merges them into a tree.

    Args:
        samples: of the training set.
        student_dim, teacher_dim: widths of the embeddings.
        runtime: device and precision.
    """
    weights, scale_mode = resolve_weights(distill)
    scaled = bool(weights.icl or weights.xrd or weights.vrd or weights.vrd_ce)  # terms with a learned scale
    division = Division(samples, distill.batch_size)
    projected = student_dim != teacher_dim and bool(weights.task or weights.hrd)
    return {
        "distill": {
            "scale_mode": scale_mode if scaled else None,
            "max_scale": distill.max_scale if scaled and scale_mode == "raw" else None,
            "weights": weights.named(),
            "project_task": distill.project_task if projected else None,
            "batch_size": -(-samples // division.steps) if samples else distill.batch_size,
            "precision": "bf16" if runtime.bf16 else "fp32",
            "device": runtime.device.type,
        }
    }
