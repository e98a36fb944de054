"""Where the classes lie: the teacher's class means on a plane, and where a student puts the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cliprd.report.charts.matrix import short
from cliprd.report.palette import TEACHER, Style, marker
from cliprd.report.svg import Scale, canvas, element, group, padded, tip

WIDTH, HEIGHT = 260, 230
Box = tuple[float, float, float, float]


def drift(
    title: str, classes: Sequence[str], teacher: NDArray[np.floating], student: NDArray[np.floating], style: Style
) -> Markup:
    """An arrow per class from the teacher's place `[C, 2]` to the student's `[C, 2]`; short is good.

    Names that would lie over marks or other names are left out; pointing at a mark tells its class.
    """
    both = np.concatenate([teacher, student])
    x = Scale(*padded(both[:, 0].tolist(), share=0.1), 10, WIDTH - 10)
    y = Scale(*padded(both[:, 1].tolist(), share=0.1), HEIGHT - 10, 10)
    places = [(x(a), y(b), x(c), y(d)) for (a, b), (c, d) in zip(teacher.tolist(), student.tolist(), strict=True)]
    taken = [(px - 4, py - 4, px + 4, py + 4) for a, b, c, d in places for px, py in ((a, b), (c, d))]
    parts = [element("rect", x=1, y=1, width=WIDTH - 2, height=HEIGHT - 2, rx=6, class_="plate")]
    labels = []
    for name, (a, b, c, d) in zip(classes, places, strict=True):
        marks = [
            element("line", x1=a, y1=b, x2=c, y2=d, class_="line"),
            marker(TEACHER.marker, a, b, size=3.2, class_="mark teacher"),
            marker(style.marker, c, d, size=3.6),
            tip(f"{name}: star = teacher, {style.marker} = student"),
        ]
        parts.append(group(marks, class_=style.css))
        labels += _label(short(name), a, b, taken)
    return canvas(WIDTH, HEIGHT, [*parts, *labels], label=title, class_="chart layout")


def _label(name: str, x: float, y: float, taken: list[Box]) -> list[Markup]:
    """The name beside its star, at the first of a few places that is free; `taken` grows by what is used."""
    width = len(name) * 5.6
    for dx, dy, anchor in ((6, 3, "start"), (-6, 3, "end"), (0, -6, "middle"), (0, 13, "middle")):
        left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (left, y + dy - 8, left + width, y + dy + 1)
        inside = box[0] > 2 and box[2] < WIDTH - 2 and box[1] > 2 and box[3] < HEIGHT - 2
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return [element("text", name, x=x + dx, y=y + dy, class_="label halo", text_anchor=anchor)]
    return []


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
