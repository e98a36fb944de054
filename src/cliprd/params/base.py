"""Types of values and the base of all sections."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
)

Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
"""Steps, rows, seconds."""
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Rows = Annotated[int, Field(gt=0, le=1 << 20)]
"""Rows of a batch: the similarity matrix of a million rows takes 4 TB."""
Width = Annotated[int, Field(gt=0, le=1 << 16)]
"""Width of an embedding or a layer."""
Pixels = Annotated[int, Field(gt=0, le=65_535)]
"""Pixels of a side, at most what JPEG supports."""
Many = Annotated[int, Field(gt=0, le=1_000_000)]
"""Epochs, views, resamples."""
Few = Annotated[int, Field(gt=0, le=1024)]
"""Processes, pods, machines."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A non-negative 64-bit integer, as torch's generators take it."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NULLS = ("~", "null", "Null", "NULL")
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
SectionT = TypeVar("SectionT", bound="Section")


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if repeated := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{repeated[0]!r} is listed twice")
    return values


Once = AfterValidator(_once)  # a repeated seed would be taken for two trainings


class Section(BaseModel):
    """Base of all sections: refuses unknown keys, does not coerce types, is immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip


def resolved(section: SectionT, **values: Any) -> SectionT:
    """A newly built section, with values that other keys determine filled in."""
    section.__dict__.update(values)
    return section
