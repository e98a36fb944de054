"""Where the classes lie: the teacher's class means on a plane, and where a student puts the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cliprd.report.charts.matrix import short
from cliprd.report.palette import TEACHER, Style, marker
from cliprd.report.svg import Scale, canvas, element, group, padded, tip

WIDTH, HEIGHT = 320, 270


def drift(
    title: str, classes: Sequence[str], teacher: NDArray[np.floating], student: NDArray[np.floating], style: Style
) -> Markup:
    """An arrow per class from the teacher's place `[C, 2]` to the student's `[C, 2]`; short is good."""
    both = np.concatenate([teacher, student])
    x = Scale(*padded(both[:, 0].tolist(), share=0.12), 8, WIDTH - 8)
    y = Scale(*padded(both[:, 1].tolist(), share=0.08), HEIGHT - 8, 8)
    parts = [element("rect", x=1, y=1, width=WIDTH - 2, height=HEIGHT - 2, rx=6, class_="plate")]
    for name, (a, b), (c, d) in zip(classes, teacher.tolist(), student.tolist(), strict=True):
        left = x(a) > WIDTH * 0.72
        parts.append(
            group(
                [
                    element("line", x1=x(a), y1=y(b), x2=x(c), y2=y(d), class_="line"),
                    marker(TEACHER.marker, x(a), y(b), size=3.2, class_="mark teacher"),
                    marker(style.marker, x(c), y(d), size=3.6),
                    element(
                        "text", short(name), x=x(a) + (-7 if left else 7), y=y(b) - 5, class_="label halo",
                        text_anchor="end" if left else "start",
                    ),
                    tip(f"{name}: star = teacher, {style.marker} = student"),
                ],
                class_=style.css,
            )
        )  # fmt: skip
    return canvas(WIDTH, HEIGHT, parts, label=title, class_="chart layout")
