"""Placement of labels in a chart: beside their marks, without overlaps."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Anchor = Literal["start", "middle", "end"]


class Box(NamedTuple):
    """Edges in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """Whether it lies completely in the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


class LabelPlace(NamedTuple):
    """A label's anchor point on its baseline, and its bounding box."""

    x: float
    y: float
    anchor: Anchor
    box: Box


def width(text: str, font: float) -> float:
    """An upper estimate, in pixels, of a text in the page's sans serif at `font` pixels."""
    return font * sum(_share(char) for char in text)


def _share(char: str) -> float:
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    if unicodedata.combining(char):
        return 0.0
    return 1.0 if char in "MWmw@%…—" else 0.72 if char.isupper() or not char.isascii() else 0.64


def around(x: float, y: float, reach: float) -> Box:
    """The box of a mark."""
    return Box(x - reach, y - reach, x + reach, y + reach)


def place(
    text: str, x: float, y: float, *, font: float, reach: float, taken: Iterable[Box], frame: Box, rings: int = 1
) -> LabelPlace | None:
    """The nearest free position beside the mark at (x, y), or None if there is none.

    Args:
        text: the label, in one line of `font` pixels.
        reach: half the mark's side.
        taken: boxes that it must not overlap.
        frame: box that it must stay in.
        rings: number of distances to try: 1 is beside the mark only; further ones need a leader line.
    """
    boxes = list(taken)
    length = width(text, font)
    for at, base, anchor in _candidates(x, y, font, reach, rings):
        left = at - {"start": 0.0, "middle": length / 2, "end": length}[anchor]
        box = Box(left, base - 0.8 * font, left + length, base + 0.25 * font)
        if box.within(frame) and not any(box.overlaps(other) for other in boxes):
            return LabelPlace(at, base, anchor, box)
    return None


def _candidates(x: float, y: float, font: float, reach: float, rings: int) -> Iterator[tuple[float, float, Anchor]]:
    for ring in range(rings):
        gap = reach + 2 + ring * 0.6 * font
        middle = y + 0.3 * font
        yield x + gap, middle, "start"
        yield x - gap, middle, "end"
        yield x, y - gap, "middle"
        yield x, y + gap + 0.8 * font, "middle"
        for rise in (-gap, gap):
            yield x + gap, middle + rise, "start"
            yield x - gap, middle + rise, "end"
