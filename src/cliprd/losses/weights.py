"""How much each term counts, and the named methods."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


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

    Raises:
        ValueError: a weight is negative, infinite or NaN.
    """

    task: float = 0.0
    hrd: float = 0.0
    icl: float = 0.0
    fd: float = 0.0
    vrd: float = 0.0
    vrd_ce: float = 0.0
    xrd: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"weight '{field.name}' = {value!r}: a finite number >= 0 is needed")


_CLIP_KD = {"task": 1.0, "hrd": 1.0, "icl": 1.0, "fd": 2000.0}
_VRD = {"vrd": 1.0, "vrd_ce": 1.0}
_XRD = {"xrd": 1.0}
_METHODS = {
    "baseline": {"task": 1.0},
    "clip_kd": _CLIP_KD,
    "vrd": {**_CLIP_KD, **_VRD},
    "xrd": {**_CLIP_KD, **_XRD},
    "clip_rd": {**_CLIP_KD, **_VRD, **_XRD},
}


def method_weights(name: str) -> LossWeights:
    """The official weights of `baseline`, `clip_kd`, `vrd`, `xrd` or `clip_rd`.

    Raises:
        ValueError: no such method.
    """
    if name not in _METHODS:
        raise ValueError(f"'{name}' is no method: allowed are {', '.join(_METHODS)}")
    return LossWeights(**_METHODS[name])
