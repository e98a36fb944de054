"""Which parameters make a training what it is; known without loading what trains."""

from __future__ import annotations

from typing import Any

from cliprd.params import Params


def sections(params: Params) -> dict[str, Any]:
    """The parameters that make a training what it is. On how many processes it ran is none of them."""
    of_training = {"student": True, "distill": True, "augmentation": True}
    return params.model_dump(mode="json", include=of_training, exclude={"distill": {"processes"}})
