"""The parameters and the code that identify a training, without importing torch."""

from __future__ import annotations

from typing import Any

from cliprd import plugins
from cliprd.params import Params

DIVIDING = ("processes", "micro_batch_size", "local_loss")  # change results by rounding only


def sections(params: Params) -> dict[str, Any]:
    """The parameters that identify a training. The division of a step's work is not among them: a training that ran out
    of memory may be resumed with more processes, or in micro-batches."""
    of_training = {"student": True, "distill": True, "augmentation": True}
    return params.model_dump(mode="json", include=of_training, exclude={"distill": set(DIVIDING)})


def code(params: Params) -> tuple[str, ...]:
    """The modules whose closure (`artifact.identity`) is its code: the stage's, and those of the user's loss terms.

    Raises:
        ParamsError: a term is not registered.
    """
    names = params.distill.weights.of_terms()
    if unknown := [name for name in names if name not in plugins.terms]:
        raise plugins.terms.unknown(unknown[0])
    return ("cliprd.stages.distill", *(module for name in names for module in plugins.terms.code(name)))
