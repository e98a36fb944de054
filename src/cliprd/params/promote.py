"""Sections `promote` and `retrain`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cliprd.params.base import Once, Section, Seed, Weight
from cliprd.params.distill import Method

Margin = Weight | Literal["none"]


class Margins(Section):
    """How much worse than the champion a candidate may be and still be promoted; `none`: not checked."""

    tasks: Margin = 5.0
    """Points (0 to 100) of each task's primary metric; the interval of the difference must lie above minus this. If it
    is much smaller than the width of the smallest task's interval, nothing is ever promoted: docs/promotion.md."""
    fidelity: Margin = 0.05
    """The same for the mean rank correlation of image-text similarities with the teacher's (cross_rank)."""
    latency: Margin = 1.0
    """Share of the champion's median latency: 1 allows up to twice as slow, since timings vary between runs."""
    size: Margin = 0.0
    """Share of the champion's parameters and operations: 0 allows an equal or smaller size."""


class Promote(Section):
    """The gate before a student becomes the champion."""

    champion: str = ""
    """`models:/<name>` in MLflow's registry at `tracking.uri`, or a folder (local or s3://) that holds the champion;
    empty: none, and nothing is promoted."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the interval of the difference of mean scores, which must lie above zero. A student that is no
    better is promoted with a probability of about (1 - confidence) / 2."""
    allow_guessing: bool = False
    """Also promote a student whose scores are not above guessing; the decision records the override."""
    margins: Margins = Margins()
    licence: str = ""
    """Licences of the training data for the model card: a text, or the path of a file with it."""

    @field_validator("champion")
    @classmethod
    def _place(cls, value: str) -> str:
        if value.startswith("models:") and not re.fullmatch(r"models:/[^/@:]+", value):
            raise ValueError("a model in the registry is written models:/<name>, without a version or an alias")
        return value


class Retrain(Section):
    """What `cliprd retrain` trains."""

    method: Method = "clip_rd-exp"
    """As `distill.method`; for `--runner dvc` one of `ablation.methods`."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once] = (0,)
    """The first seed's student is promoted; further seeds let the gate estimate training noise."""
