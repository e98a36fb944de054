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
"""Steps, rows, seconds: a billion is more than any machine does."""
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Rows = Annotated[int, Field(gt=0, le=1 << 20)]
"""Of a batch: the similarities of a million rows with each other are 4 TB."""
Width = Annotated[int, Field(gt=0, le=1 << 16)]
"""Of an embedding or a layer."""
Pixels = Annotated[int, Field(gt=0, le=65_535)]
"""Of a side: what JPEG can hold."""
Many = Annotated[int, Field(gt=0, le=1_000_000)]
"""Epochs, views, resamples."""
Few = Annotated[int, Field(gt=0, le=1024)]
"""Processes, pods, machines."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What a signed integer of 64 bits holds, as torch's generators take it."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NULLS = ("~", "null", "Null", "NULL")
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
SectionT = TypeVar("SectionT", bound="Section")


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return values


Once = AfterValidator(_once)  # a seed that counts twice would pass for two trainings


class Section(BaseModel):
    """Unknown keys are refused, values are not coerced between kinds, and nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip


def resolved(section: SectionT, **values: Any) -> SectionT:
    """A section that was just built, with what other keys decide filled in."""
    section.__dict__.update(values)
    return section
