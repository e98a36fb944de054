"""The parameters that identify a training, without importing torch."""

from __future__ import annotations

from typing import Any

from cliprd.params import Params

DIVIDING = ("processes", "micro_batch_size", "local_loss")  # change results by rounding only


def sections(params: Params) -> dict[str, Any]:
    """The parameters that identify a training. The division of a step's work is not among them: a training that ran out
    of memory may be resumed with more processes, or in micro-batches."""
    of_training = {"student": True, "distill": True, "augmentation": True}
    return params.model_dump(mode="json", include=of_training, exclude={"distill": set(DIVIDING)})
