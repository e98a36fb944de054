"""Sections `teacher` and `cache`."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    field_validator,
    model_validator,
)

from cliprd.params.base import Fraction, Many, Pixels, Rate, Rows, Section, Seed, Weight, Width


class Aligned(Section):
    """Training of the demo teacher's two heads over frozen EfficientNet-Lite0 and MiniLM features."""

    dim: Width = 256
    hidden: Width = 512
    image_size: Pixels = 224
    epochs: Many = 24
    batch_size: Rows = 1024
    lr: Rate = 1e-3
    weight_decay: Weight = 0.1
    dropout: Fraction = 0.3
    seed: Seed = 0


class Preprocess(Section):
    """Image preprocessing of a teacher; the size is its architecture's."""

    mean: tuple[float, float, float]
    std: tuple[Rate, Rate, Rate]
    interpolation: Literal["bicubic", "bilinear"]
    resize_mode: Literal["shortest", "longest", "squash"]
    """`shortest`: the shorter side is resized and the centre cropped; `longest`: the longer side is resized and the
    image padded with black; `squash`: both sides are resized."""


class Teacher(Section):
    """The large model that is distilled."""

    name: str = "aligned"
    """`aligned` (trained here on packaged weights) or `open_clip:<architecture>:<pretrained tag or file>`; the file may
    be in s3://, for machines without access to a model hub."""
    quickgelu: bool | None = None
    """Whether weights from a file were trained with QuickGELU. A tag determines it, as does an architecture whose tags
    agree; if they disagree it must be given."""
    preprocess: str | Preprocess | None = None
    """The preprocessing of weights from a file: a tag of the architecture, or {mean, std, interpolation, resize_mode}.
    As with `quickgelu`, only needed if nothing else determines it."""
    aligned: Aligned = Aligned()

    @model_validator(mode="after")
    def _of_open_clip(self) -> Teacher:
        if self.name == "aligned" and (self.quickgelu is not None or self.preprocess is not None):
            raise ValueError("quickgelu and preprocess are for open_clip's teachers; 'aligned' takes neither")
        return self

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        parts = name.split(":", 2)
        if name != "aligned" and not (parts[0] == "open_clip" and len(parts) == 3 and all(parts)):
            raise ValueError("is neither 'aligned' nor 'open_clip:<architecture>:<pretrained tag or file>'")
        return name


class Cache(Section):
    """The teacher cache."""

    views: Many = 1
    """Augmented views stored per image; epoch e of sample k uses view hash(k, e) mod views."""
    batch_size: Rows = 64
