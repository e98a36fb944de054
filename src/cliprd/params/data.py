"""Sections `data` and `augmentation`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from cliprd.params.base import Fraction, Many, Pixels, Rate, Section, Seed

CSV_KEYS = ("separator", "image_key", "caption_key")


class Data(Section):
    """Where the training pairs come from and how `prepare` packs them."""

    kind: Literal["webdataset", "csv", "folder"] = "webdataset"
    """`webdataset`: img2dataset's tars; `csv`: open_clip's table; `folder`: images with a .txt of the same name."""
    path: str = "data/demo/train"
    """Folder, brace pattern or file; local or s3://."""
    csv_separator: str = "\t"
    """Separator of columns, one character; `\\t`, as a shell passes it on, is a tab."""
    csv_image_key: str = "filepath"
    csv_caption_key: str = "title"
    csv_quoting: Literal["minimal", "none"] = "minimal"
    """`minimal`: a cell may be quoted, with quotes in it doubled; `none`: quotes are plain characters."""
    samples_per_shard: Many = 1000
    max_side: Pixels | None = None
    """Longer sides are scaled down to this many pixels when packing; null keeps the source's bytes."""
    max_pixels: Annotated[int, Field(gt=0, lt=2**31)] = 64_000_000
    """Images with more pixels are quarantined without decoding (decompression bombs)."""
    max_bad_fraction: Fraction = 0.01
    """The stage fails if a larger share of samples is quarantined."""

    @field_validator("csv_separator")
    @classmethod
    def _separator(cls, value: str) -> str:
        value = "\t" if value == "\\t" else value
        if len(value) != 1 or value in '"\r\n\0':
            raise ValueError("must be one character other than a quote or a line break, such as , or ; or \\t")
        return value


class Augmentation(Section):
    """The stateless random resized crop that teacher and student share (RandomResizedCrop's parameters)."""

    scale: tuple[Rate, Rate] = (0.9, 1.0)
    """Share of the image's area that a crop covers, lowest and highest."""
    ratio: tuple[Rate, Rate] = (0.75, 4 / 3)
    """Width over height of a crop, lowest and highest."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale needs lowest <= highest <= 1")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio needs lowest <= highest")
        return self
