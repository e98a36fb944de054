"""Lines over training steps, as one small panel per quantity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cliprd.formatting import number
from cliprd.report.palette import Style
from cliprd.report.svg import Scale, canvas, element, group, padded

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 26
MOST_POINTS = 120


@dataclass(frozen=True)
class Series:
    """One line: `x` and `y` of equal length; several series may share a label (the seeds of a method)."""

    label: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]


def thinned(x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` finite points: means over equal bins, so that noise is averaged."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) <= most:
        return pairs
    edges = [len(pairs) * i // most for i in range(most + 1)]
    bins = [pairs[a:b] for a, b in itertools.pairwise(edges)]
    return [(sum(p[0] for p in part) / len(part), sum(p[1] for p in part) / len(part)) for part in bins]


def panel(title: str, series: Sequence[Series], *, x_label: str = "step") -> Markup:
    """One quantity, all methods. The page's script reads values under the pointer from the data attributes."""
    lines = [(one, thinned(one.x, one.y)) for one in series]
    lines = [(one, line) for one, line in lines if line]
    x_range = (min(line[0][0] for _, line in lines), max(line[-1][0] for _, line in lines)) if lines else (0.0, 1.0)
    y_range = padded(value for _, line in lines for _, value in line)
    x = Scale(*x_range, LEFT, WIDTH - RIGHT)
    y = Scale(*y_range, HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y, x_label)]
    parts += [_line(one, line, x, y) for one, line in lines]
    parts.append(element("line", x1=0, x2=0, y1=TOP, y2=HEIGHT - BOTTOM, class_="cursor", visibility="hidden"))
    data = {
        "data_x": f"{x.low:.8g} {x.high:.8g} {x.start} {x.end}",
        "data_y": f"{y.low:.8g} {y.high:.8g} {y.start} {y.end}",
        "data_unit": x_label,
    }
    return canvas(WIDTH, HEIGHT, parts, label=f"{title} over {x_label}s", class_="chart curves", **data)


def _axes(x: Scale, y: Scale, x_label: str) -> Markup:
    foot = HEIGHT - BOTTOM
    parts = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(t), y2=y(t), class_="grid") for t in y.ticks(4)]
    parts += [
        element("text", number(t), x=LEFT - 6, y=y(t) + 3.5, class_="tick", text_anchor="end") for t in y.ticks(4)
    ]
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=foot, y2=foot, class_="axis"))
    marks = x.ticks(4)
    for t in marks:
        last = t == marks[-1]
        text = f"{x_label} {number(t)}" if last and len(marks) > 1 else number(t)
        anchor = "end" if last and x(t) > WIDTH - RIGHT - 24 else "middle"
        parts.append(element("text", text, x=min(x(t), WIDTH - RIGHT), y=foot + 16, class_="tick", text_anchor=anchor))
    return group(parts)


def _line(one: Series, line: Sequence[tuple[float, float]], x: Scale, y: Scale) -> Markup:
    path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
    if len(line) == 1:
        return element("circle", cx=x(line[0][0]), cy=y(line[0][1]), r=3, class_=f"mark {one.style.css}")
    return element(
        "path", d=path, class_=f"line {one.style.css}", data_label=one.label, stroke_dasharray=one.style.dash
    )
