"""Section `student`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    model_validator,
)

from cliprd.params.base import Rate, Section, resolved


class Student(Section):
    """The small model."""

    ARCH: ClassVar[str] = "ViT-T-16"

    arch: str | None = ARCH
    """Name of a config shipped with cliprd or open_clip; null with `config`."""
    config: dict[str, Any] | None = None
    """An open_clip model config: embed_dim, vision_cfg, text_cfg; in place of `arch`."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[Rate, Rate, Rate] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @model_validator(mode="after")
    def _one_of_both(self) -> Student:
        """The resolved tree has either `arch` or `config`."""
        if self.config is not None and self.arch is not None and "arch" in self.model_fields_set:
            raise ValueError(
                f"student.arch = {self.arch!r} and student.config are both given; remove one, or set it to null"
            )
        return resolved(self, arch=None if self.config is not None else self.arch or self.ARCH)
