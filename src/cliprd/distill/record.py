"""What training reports: one record every `distill.log_every` steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Record:
    """State of a training after `step` optimiser steps.

    Attributes:
        step: optimiser steps done, from 1.
        epoch: epoch the step belongs to, from 0.
        lr: learning rate of the step.
        terms: weighted loss terms; the objective is their sum.
        scales: multipliers in use: the student's logit scale and the loss's learned ones.
        grad_norm: norm of all gradients before clipping.
        images_per_second: since the last record.
        data_wait: share of that time spent waiting for data, 0 to 1.
        time: when, in milliseconds since the epoch.
    """

    step: int
    epoch: int
    lr: float
    terms: Mapping[str, float]
    scales: Mapping[str, float]
    grad_norm: float
    images_per_second: float
    data_wait: float
    time: int
