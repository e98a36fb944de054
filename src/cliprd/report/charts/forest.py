"""Estimates with intervals: the forest plot of paired differences and the small bar inside a table's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cliprd.formatting import figure
from cliprd.report.palette import Style, marker
from cliprd.report.svg import Scale, canvas, element, group, padded, tip

ROW = 30
WIDTH = 330
LABEL = 92


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot; `interval` has value, low and high as shares of 1."""

    label: str
    style: Style
    interval: Mapping[str, float]


def points(value: float, *, sign: bool = False) -> str:
    """A share of 1 as percentage points with one decimal and a true minus; with `sign`, all but zero get a sign."""
    return f"{100 * value:{'+' if sign and value else ''}.1f}".replace("-", "−")


def spread(interval: Mapping[str, float], *, sign: bool = False) -> str:
    """`12.3 [10.1, 14.2]` in points."""
    low, high = points(interval["low"], sign=sign), points(interval["high"], sign=sign)
    return f"{points(interval['value'], sign=sign)} [{low}, {high}]"


def domain(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """Range, in points, that shows all intervals and zero."""
    return padded([0.0, *(100 * row.interval[end] for row in rows for end in ("low", "high"))], share=0.08)


def forest(title: str, rows: Sequence[ForestRow], reach: tuple[float, float]) -> Markup:
    """Rows against a zero line; a mark is hollow if its interval contains zero, else filled."""
    height = len(rows) * ROW + 34
    x = Scale(*reach, LABEL, WIDTH - 12)
    foot = height - 26
    parts = [element("line", x1=x(t), x2=x(t), y1=6, y2=foot, class_="grid") for t in x.ticks(5)]
    parts += [element("text", _signed(t), x=x(t), y=foot + 16, class_="tick", text_anchor="middle") for t in x.ticks(5)]
    parts.append(element("line", x1=x(0), x2=x(0), y1=2, y2=foot, class_="zero"))
    for index, row in enumerate(rows):
        parts.append(_forest_row(row, x, 6 + index * ROW + ROW / 2))
    return canvas(WIDTH, height, parts, label=f"{title}: paired differences in points with their intervals")


def _forest_row(row: ForestRow, x: Scale, y: float) -> Markup:
    low, value, high = (x(100 * row.interval[key]) for key in ("low", "value", "high"))
    spans = row.interval["low"] <= 0 <= row.interval["high"]
    return group(
        [
            element("text", row.label, x=LABEL - 8, y=y + 4, class_="label", text_anchor="end"),
            element("rect", x=LABEL, y=y - ROW / 2, width=WIDTH - LABEL - 12, height=ROW, class_="hit"),
            element("line", x1=low, x2=high, y1=y, y2=y, class_="whisker"),
            element("path", d=f"M{low:.1f} {y - 5:.1f}v10M{high:.1f} {y - 5:.1f}v10", class_="whisker"),
            marker(row.style.marker, value, y, size=5, class_="mark hollow" if spans else "mark"),
            tip(f"{row.label}: {spread(row.interval, sign=True)} points"),
        ],
        class_=f"{row.style.css} row",
    )


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + figure(value, 3)


def bar(interval: Mapping[str, float], style: Style, *, top: float) -> Markup:
    """The bar of a table's cell: the value from zero to `top` (a share of 1), with the interval as a line."""
    x = Scale(0, top or 1, 1, 83)
    low, value, high = (x(interval[key]) for key in ("low", "value", "high"))
    parts = [
        element("rect", x=0, y=3, width=84, height=4, rx=2, class_="track"),
        element("rect", x=0, y=3, width=max(value, 1.0), height=4, rx=2, class_="fill"),
        element("path", d=f"M{low:.1f} 5H{high:.1f}M{low:.1f} 2v6M{high:.1f} 2v6", class_="whisker"),
    ]
    return canvas(84, 10, parts, label=spread(interval), class_=f"bar {style.css}")
