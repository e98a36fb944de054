"""Sections `promote` and `retrain`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
)

from cliprd.params.base import Once, Section, Seed, Weight
from cliprd.params.distill import parse_method

Margin = Weight | Literal["none"]


class Margins(Section):
    """By how much a candidate may be worse than the champion and still be promoted; `none`: not guarded."""

    tasks: Margin = 5.0
    """Points (0 to 100) of each task's primary metric; the interval of the difference must end above minus that. Far
    below the width of the smallest task's interval nothing is ever promoted: docs/promotion.md."""
    fidelity: Margin = 0.05
    """Of the mean rank correlation of image-text similarities with the teacher's (cross_rank); the same way."""
    latency: Margin = 1.0
    """Share of the champion's median latency: 1 is up to twice as slow. Timings of one machine at two times differ."""
    size: Margin = 0.0
    """Share of the champion's parameters and operations: 0 is exactly as large, or smaller."""


class Promote(Section):
    """The gate before a student becomes the champion."""

    champion: str = ""
    """`models:/<name>` in MLflow's registry at `tracking.uri`, or a folder (local or s3://) that holds the champion;
    empty: there is none, and nothing is promoted."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the interval of the difference of mean scores, which must lie above zero as a whole. A student that is no
    better is promoted with a chance of about half of what lacks to 1."""
    allow_guessing: bool = False
    """Promote a student too whose scores are not above guessing; the decision names it as overridden."""
    margins: Margins = Margins()
    licence: str = ""
    """Licences of the training data for the model card: a text, or a file that holds it."""

    @field_validator("champion")
    @classmethod
    def _place(cls, value: str) -> str:
        if value.startswith("models:") and not re.fullmatch(r"models:/[^/@:]+", value):
            raise ValueError("a model in the registry is written models:/<name>, without a version or an alias")
        return value


class Retrain(Section):
    """What `cliprd retrain` trains."""

    method: str = "clip_rd-exp"
    """As `distill.method`; for `--runner dvc` one of `ablation.methods`."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once] = (0,)
    """The first seed's student is the one that is promoted; further ones tell the gate how much is chance."""

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        parse_method(value)
        return value
