"""Sections `benchmark` and `compare`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from cliprd.params.base import Many, Once, Rows, Section, Seed


class Benchmark(Section):
    """Zero-shot evaluation of students and teacher."""

    tasks: str = "data/demo/benchmark"
    """Folder whose subfolders are tasks in CLIP_benchmark's WebDataset layout; local or s3://."""
    names: Annotated[tuple[str, ...], Once] | None = None
    """Tasks to run; null runs all."""
    protocols: Annotated[tuple[Literal["standard", "paper"], ...], Field(min_length=1), Once] = ("standard", "paper")
    batch_size: Rows = 128
    bootstrap: Many = 1000
    """Bootstrap resamples of each interval, the gate's included; use fewer than 1000 only for quick trials."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    fidelity_samples: Many = 1000
    """Images and captions on which teacher and student geometry are compared."""
    speed: bool = True
    """Measure latency and images per second (a few seconds per model)."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _enough(self) -> Benchmark:
        needed = math.ceil(2 / (1 - self.confidence) - 1 - 1e-9)
        if self.bootstrap < needed:
            raise ValueError(
                f"bootstrap {self.bootstrap} is too few for confidence {self.confidence:g}: {needed} at least"
            )
        return self


class Compare(Section):
    """The comparison of methods."""

    reference: str = "clip_kd"
    """Method that the others are compared with in pairs."""
    protocol: Literal["standard", "paper"] = "standard"
