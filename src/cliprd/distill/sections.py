"""Which parameters make a training what it is; known without loading what trains."""

from __future__ import annotations

from typing import Any

from cliprd.params import Params

DIVIDING = ("processes", "micro_batch_size", "local_loss")  # change results by rounding only


def sections(params: Params) -> dict[str, Any]:
    """The parameters that make a training what it is. How the work of a step was divided is none of them: a training
    that ran out of memory may go on with more processes, or in micro-batches."""
    of_training = {"student": True, "distill": True, "augmentation": True}
    return params.model_dump(mode="json", include=of_training, exclude={"distill": set(DIVIDING)})
