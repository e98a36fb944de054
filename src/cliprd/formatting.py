"""Formats values for people: numbers of three or four digits without exponents, sizes, durations, leaves of a tree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def figure(value: float, digits: int = 4) -> str:
    """`17,570`, `12.3`, `0.00051`: at least `digits` significant digits, the complete integer part, and a true minus.

    Only values below a millionth have an exponent.
    """
    if not math.isfinite(value):
        return "–"
    if value != 0 and abs(value) < 1e-6:
        return f"{value:.{digits - 1}g}".replace("-", "−")
    integer_digits = math.floor(math.log10(abs(value))) + 1 if value else 1
    text = f"{value:,.{max(0, digits - integer_digits)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def number(value: float) -> str:
    """A tick's label: three digits, with k, M and G for thousands, millions and billions."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:
            return figure(value / limit, 3) + unit
    return figure(value, 3)


def size(count: int) -> str:
    """Bytes of a file, in powers of 1,000 as file managers and model pages show them."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{figure(count / limit, 3)} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{figure(seconds, 2)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, each with its path: `a.b.c`. An empty mapping is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: columns of equal width, two spaces between them, no space at a line's end."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))
    return "".join(f"{line}\n" for line in lines)
