"""How much each term counts, and the named methods."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

BUILT_IN = ("task", "hrd", "icl", "fd", "vrd", "vrd_ce", "xrd")
VRD_CE = ("vrd_ce_image", "vrd_ce_text")  # the terms of the weight vrd_ce
# Columns of a training's history beside its terms.
_TAKEN = {*BUILT_IN, *VRD_CE, "extra", "step", "epoch", "lr", "loss", "total", "grad_norm"}


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms; 0 leaves a term out altogether: it is neither computed nor in the result.

    Attributes:
        task: CLIP's own loss between the student's image and text embeddings.
        hrd: the student's similarity matrix follows the teacher's (CLIP-KD's CRD).
        icl: interactive contrastive learning: student embeddings against the teacher's of the other modality.
        fd: mean squared distance of embeddings.
        vrd: image-image relations follow text-text relations, both between teacher and student.
        vrd_ce: the two cross entropies that the official code hides in vrd: terms `vrd_ce_image` and `vrd_ce_text`.
        xrd: the two crossed relations follow each other.
        extra: of terms that are not built in, by name; their functions go to `DistillationLoss(terms=...)`.
        scale_mode: what a method's name says of it (`clip_rd-exp`), for `DistillationLoss`; None: nothing.

    Raises:
        ValueError: a weight is negative, infinite or NaN; or the name of an extra term is taken or no plain name.
    """

    task: float = 0.0
    hrd: float = 0.0
    icl: float = 0.0
    fd: float = 0.0
    vrd: float = 0.0
    vrd_ce: float = 0.0
    xrd: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict, hash=False)
    scale_mode: Literal["raw", "exp"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra", dict(self.extra))  # our own
        for name in self.extra:
            check_term_name(name)
        for name, value in self.named().items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"weight '{name}' = {value!r}: a finite number >= 0 is needed")
        if self.scale_mode not in (None, "raw", "exp"):
            raise ValueError(f"scale_mode {self.scale_mode!r}: 'raw' or 'exp' is needed, or None")

    def named(self) -> dict[str, float]:
        """All weights by name, the extra ones last."""
        return {**{name: getattr(self, name) for name in BUILT_IN}, **self.extra}


def check_term_name(name: str) -> None:
    """Refuse a name that an extra term cannot have.

    Raises:
        ValueError: it is no lower-case identifier, ends in `scale` (as learned scales do), or is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name.endswith("scale"):
        raise ValueError(f"'{name}' is no name of a term: [a-z][a-z0-9_]*, not ending in 'scale'")
    if name in _TAKEN:
        raise ValueError(f"'{name}' is taken: an extra term needs another name")


_CLIP_KD = LossWeights(task=1.0, hrd=1.0, icl=1.0, fd=2000.0)
_METHODS = {
    "baseline": LossWeights(task=1.0),
    "clip_kd": _CLIP_KD,
    "vrd": dataclasses.replace(_CLIP_KD, vrd=1.0, vrd_ce=1.0),
    "xrd": dataclasses.replace(_CLIP_KD, xrd=1.0),
    "clip_rd": dataclasses.replace(_CLIP_KD, vrd=1.0, vrd_ce=1.0, xrd=1.0),
}


def method_weights(name: str) -> LossWeights:
    """The official weights of `baseline`, `clip_kd`, `vrd`, `xrd` or `clip_rd`, each with -raw or -exp or without.

    A suffix comes back as the weights' `scale_mode`, which `DistillationLoss` then takes.

    Raises:
        ValueError: no such method.
    """
    method, dash, mode = name.partition("-")
    scale_modes: dict[str, Literal["raw", "exp"] | None] = {"": None, "raw": "raw", "exp": "exp"}
    if method not in _METHODS or mode not in scale_modes or bool(mode) != bool(dash):
        raise ValueError(f"'{name}' is no method: allowed are {', '.join(_METHODS)}, each optionally with -raw or -exp")
    return dataclasses.replace(_METHODS[method], scale_mode=scale_modes[mode])
