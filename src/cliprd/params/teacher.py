"""Sections `teacher` and `cache`."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import (
    field_validator,
    model_validator,
)

from cliprd.params.base import Fraction, Many, Pixels, Rate, Rows, Section, Seed, Weight, Width

_OPEN_CLIP = "open_clip:"


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
    """`open_clip:<architecture>:<pretrained tag or file>`, where the file may lie in s3://, for machines that reach no
    model hub; or a plug-in's name: `aligned`, the demo's (trained here on packaged weights), or one that a package or a
    script has registered (docs/library.md)."""
    quickgelu: bool | None = None
    """Whether weights from a file were trained with QuickGELU. A tag determines it, as does an architecture whose tags
    agree; if they disagree it must be given."""
    preprocess: str | Preprocess | None = None
    """The preprocessing of weights from a file: a tag of the architecture, or {mean, std, interpolation, resize_mode}.
    As with `quickgelu`, only needed if nothing else determines it."""
    aligned: Aligned = Aligned()
    settings: dict[str, Any] = {}
    """What a registered teacher is to know: its plug-in says which keys there are."""

    @property
    def of_open_clip(self) -> bool:
        """Whether the name is open_clip's, and no plug-in's."""
        return self.name.startswith(_OPEN_CLIP)

    @property
    def own_section(self) -> str:
        """The key under which a plug-in's settings stand: its own name, where it has a section, else `settings`."""
        return self.name if isinstance(getattr(self, self.name, None), Section) else "settings"

    @property
    def own_settings(self) -> dict[str, Any]:
        """A plug-in's settings."""
        return dict(self.model_dump(mode="json")[self.own_section])

    @model_validator(mode="after")
    def _fits(self) -> Teacher:
        if not self.of_open_clip and (self.quickgelu is not None or self.preprocess is not None):
            raise ValueError(f"quickgelu and preprocess are for open_clip's teachers; '{self.name}' takes neither")
        return self

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        parts = name.split(":", 2)
        of_open_clip = name.startswith(_OPEN_CLIP) and len(parts) == 3 and all(parts)
        if not of_open_clip and not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError("is neither 'open_clip:<architecture>:<pretrained tag or file>' nor the name of a plug-in")
        return name


class Cache(Section):
    """The teacher cache."""

    views: Many = 1
    """Augmented views stored per image; epoch e of sample k uses view hash(k, e) mod views."""
    batch_size: Rows = 64
