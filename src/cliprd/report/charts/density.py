"""A hexbin chart of many pairs: the teacher's similarity on x, the student's on y."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cliprd.formatting import number
from cliprd.report.palette import Style
from cliprd.report.svg import Scale, canvas, element

SIDE, LEFT, BOTTOM = 240, 40, 34
RADIUS = 4.2
LEVELS = 6


def hexbin(
    title: str,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    style: Style,
    reach: tuple[float, float],
    *,
    x_label: str,
    y_label: str,
) -> Markup:
    """Counts of points per hexagon, in six logarithmic steps; on the diagonal student equals teacher."""
    across = Scale(*reach, LEFT, SIDE - 6)
    up = Scale(*reach, SIDE - BOTTOM, 6)
    parts = [element("rect", x=LEFT, y=6, width=SIDE - 6 - LEFT, height=SIDE - BOTTOM - 6, class_="plate")]
    parts += _bins(across.start + (x - reach[0]) / (reach[1] - reach[0]) * (across.end - across.start),
                   up.start + (y - reach[0]) / (reach[1] - reach[0]) * (up.end - up.start))  # fmt: skip
    parts.append(
        element("line", x1=across(reach[0]), y1=up(reach[0]), x2=across(reach[1]), y2=up(reach[1]), class_="diagonal")
    )
    for t in (t for t in across.ticks(4) if LEFT + 14 < across(t) < SIDE - 18):
        parts.append(element("text", number(t), x=across(t), y=SIDE - BOTTOM + 13, class_="tick", text_anchor="middle"))
        parts.append(element("text", number(t), x=LEFT - 5, y=up(t) + 3.5, class_="tick", text_anchor="end"))
    middle = (LEFT + SIDE - 6) / 2
    parts.append(element("text", x_label, x=middle, y=SIDE - 5, class_="tick", text_anchor="middle"))
    turn = f"translate(9 {(SIDE - BOTTOM + 6) / 2:.1f}) rotate(-90)"
    parts.append(element("text", y_label, transform=turn, class_="tick", text_anchor="middle"))
    return canvas(SIDE, SIDE, parts, label=title, class_=f"chart density {style.css}")


def _bins(x: NDArray[np.floating], y: NDArray[np.floating]) -> list[Markup]:
    """One path per level, which takes a dozen bytes a hexagon."""
    dx, dy = RADIUS * 3**0.5, RADIUS * 1.5
    row = np.round(y / dy).astype(int)
    column = np.round(x / dx - (row % 2) / 2).astype(int)
    cells, counts = np.unique(np.stack([row, column], axis=1), axis=0, return_counts=True)
    top = np.log1p(counts.max()) if len(counts) else 1.0
    level = np.minimum((np.log1p(counts) / top * LEVELS).astype(int), LEVELS - 1)
    h, r = dx / 2, RADIUS
    outline = f"l{h:.1f} {r / 2:.1f}v{r:.1f}l{-h:.1f} {r / 2:.1f}l{-h:.1f} {-r / 2:.1f}v{-r:.1f}z"
    paths = []
    for step in range(LEVELS):
        chosen = cells[level == step]
        if len(chosen):
            d = "".join(f"M{(c + (q % 2) / 2) * dx:.1f} {q * dy - r:.1f}{outline}" for q, c in chosen.tolist())
            paths.append(element("path", d=d, class_="bin", fill_opacity=f"{0.1 + 0.9 * (step + 1) / LEVELS:.2f}"))
    return paths
