"""A map of classes: the class means of teacher and student on a plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cliprd.report.charts.labels import Box, around, place
from cliprd.report.charts.matrix import short
from cliprd.report.palette import TEACHER, Style, marker
from cliprd.report.svg import Scale, canvas, element, group, padded, tip

WIDTH, HEIGHT = 260, 230
FRAME = Box(2, 2, WIDTH - 2, HEIGHT - 2)
FONT, STAR, MARK = 10.5, 3.2, 3.6
REACH = 1.5 * STAR + 0.5  # half the side of the larger of both


def drift(
    title: str, classes: Sequence[str], teacher: NDArray[np.floating], student: NDArray[np.floating], style: Style
) -> Markup:
    """A line per class from the teacher's mean `[C, 2]` to the student's `[C, 2]`; short is good.

    Names that would overlap are left out; a mark's tooltip has its class.
    """
    both = np.concatenate([teacher, student])
    x = Scale(*padded(both[:, 0].tolist(), share=0.1), 10, WIDTH - 10)
    y = Scale(*padded(both[:, 1].tolist(), share=0.1), HEIGHT - 10, 10)
    ends = [(x(a), y(b), x(c), y(d)) for (a, b), (c, d) in zip(teacher.tolist(), student.tolist(), strict=True)]
    taken = [around(px, py, REACH) for a, b, c, d in ends for px, py in ((a, b), (c, d))]
    parts = [element("rect", x=1, y=1, width=WIDTH - 2, height=HEIGHT - 2, rx=6, class_="plate")]
    labels = []
    for name, (a, b, c, d) in zip(classes, ends, strict=True):
        marks = [
            element("line", x1=a, y1=b, x2=c, y2=d, class_="line"),
            marker(TEACHER.marker, a, b, size=STAR, class_="mark teacher"),
            marker(style.marker, c, d, size=MARK),
            tip(f"{name}: star = teacher, {style.marker} = student"),
        ]
        parts.append(group(marks, class_=style.css))
        label = short(name)
        if label_position := place(label, a, b, font=FONT, reach=REACH, taken=taken, frame=FRAME):
            taken.append(label_position.box)
            labels.append(
                element(
                    "text",
                    label,
                    x=label_position.x,
                    y=label_position.y,
                    class_="label halo",
                    text_anchor=label_position.anchor,
                )
            )
    return canvas(WIDTH, HEIGHT, [*parts, *labels], label=title, class_="chart layout")
