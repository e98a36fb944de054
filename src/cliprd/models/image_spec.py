"""Image preprocessing of an encoder: the only part of a model that the data package needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Square input of an image tower; same meaning as open_clip's `preprocess_cfg`.

    Attributes:
        size: side of the square input in pixels.
        mean, std: per-channel normalisation of RGB in [0, 1].
        interpolation: PIL filter used to resize, always antialiased.
        resize_mode: how evaluation fits a picture into the square. `shortest`: the shorter side is resized and the
            centre cropped; `longest`: the longer side is resized and the picture padded with black; `squash`: both
            sides are resized. Random crops are resized to the square in any mode.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, for manifests and fingerprints."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ImageSpec:
        """Inverse of `to_dict`."""
        return cls(
            size=value["size"],
            mean=tuple(value["mean"]),
            std=tuple(value["std"]),
            interpolation=value["interpolation"],
            resize_mode=value.get("resize_mode", "shortest"),
        )
