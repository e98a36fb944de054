"""Speed against score: what a model costs and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cliprd.report.charts.forest import spread
from cliprd.report.palette import Style, marker
from cliprd.report.svg import Scale, canvas, element, group, number, padded, tip

WIDTH, HEIGHT, LEFT, BOTTOM = 470, 290, 44, 42


@dataclass(frozen=True)
class Point:
    """A model: `x` > 0 (images per second, parameters, …), its score interval as shares of 1."""

    label: str
    style: Style
    x: float
    score: Mapping[str, float]


def tradeoff(points: Sequence[Point], *, x_label: str) -> Markup:
    """Score in points over a logarithmic x; whiskers are the scores' intervals."""
    low, high = min(p.x for p in points), max(p.x for p in points)
    x = Scale(low / 1.45, high * 1.45, LEFT, WIDTH - 12, log=True)
    ends = [100 * p.score[key] for p in points for key in ("low", "high")]
    y_low, y_high = padded(ends, share=0.15)
    y = Scale(max(0.0, y_low), y_high, HEIGHT - BOTTOM, 10)
    foot = HEIGHT - BOTTOM
    parts = [element("line", x1=LEFT, x2=WIDTH - 12, y1=y(t), y2=y(t), class_="grid") for t in y.ticks(6)]
    parts += [element("text", number(t), x=LEFT - 7, y=y(t) + 4, class_="tick", text_anchor="end") for t in y.ticks(6)]
    parts += [element("line", x1=x(t), x2=x(t), y1=10, y2=foot, class_="grid") for t in x.ticks(4)]
    parts += [element("text", number(t), x=x(t), y=foot + 16, class_="tick", text_anchor="middle") for t in x.ticks(4)]
    parts.append(element("line", x1=LEFT, x2=WIDTH - 12, y1=foot, y2=foot, class_="axis"))
    parts.append(element("text", x_label, x=(LEFT + WIDTH) / 2, y=HEIGHT - 6, class_="tick", text_anchor="middle"))
    turn = f"translate(12 {foot / 2:.1f}) rotate(-90)"
    parts.append(element("text", "mean score (%)", transform=turn, class_="tick", text_anchor="middle"))
    parts += _points(points, x, y)
    return canvas(WIDTH, HEIGHT, parts, label=f"Mean score against {x_label}", class_="chart wide")


def _points(points: Sequence[Point], x: Scale, y: Scale) -> list[Markup]:
    parts = []
    free: list[tuple[float, float]] = []  # where labels already are: neighbours are pushed apart, with a thin leader
    for point in sorted(points, key=lambda p: -p.score["value"]):
        px, py = x(point.x), y(100 * point.score["value"])
        bottom, top = y(100 * point.score["low"]), y(100 * point.score["high"])
        left = px > WIDTH - 130
        at = py + 4
        while any(abs(px - qx) < 130 and abs(at - qy) < 13 for qx, qy in free):
            at += 2
        free.append((px, at))
        tx = px + (-14 if left else 14)
        parts.append(
            group(
                [
                    element("line", x1=px, x2=px, y1=bottom, y2=top, class_="whisker"),
                    element("line", x1=px, y1=py, x2=tx + (2 if left else -2), y2=at - 4, class_="leader"),
                    marker(point.style.marker, px, py, size=5.5),
                    element("text", point.label, x=tx, y=at, class_="label", text_anchor="end" if left else "start"),
                    tip(f"{point.label}: {spread(point.score)}, at {number(point.x)}"),
                ],
                class_=f"{point.style.css} row",
            )
        )  # fmt: skip
    return parts
