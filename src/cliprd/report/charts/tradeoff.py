"""Score against speed or size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cliprd.formatting import figure, number
from cliprd.report.charts.forest import spread
from cliprd.report.charts.labels import Box, LabelPlace, around, place
from cliprd.report.palette import Style, marker
from cliprd.report.results import Measured
from cliprd.report.svg import Scale, canvas, element, group, padded, tip

WIDTH, HEIGHT, LEFT, BOTTOM = 420, 270, 44, 42
FRAME = Box(LEFT, 4, WIDTH - 4, HEIGHT - BOTTOM)
FONT, MARK, RINGS = 11.5, 5.5, 40
REACH = 1.5 * MARK + 0.5  # half the side of the largest marker, the star, with its outline


@dataclass(frozen=True)
class Point:
    """A model, or several of one architecture.

    Attributes:
        label: beside the mark.
        x: images per second, parameters, …; positive. Its range is drawn if it has one.
        score: interval as shares of 1.
    """

    label: str
    style: Style
    x: Measured
    score: Mapping[str, float]


def tradeoff(points: Sequence[Point], *, x_label: str) -> Markup:
    """Score in points over a logarithmic x; whiskers are the scores' intervals and the ranges of x."""
    low, high = min(p.x.low for p in points), max(p.x.high for p in points)
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
    parts += [_mark(point, x, y) for point in points]
    parts += _labels(points, x, y)
    return canvas(WIDTH, HEIGHT, parts, label=f"Mean score against {x_label}", class_="chart wide")


def _mark(point: Point, x: Scale, y: Scale) -> Markup:
    px, py = x(point.x.value), y(100 * point.score["value"])
    bottom, top = y(100 * point.score["low"]), y(100 * point.score["high"])
    left, right = x(point.x.low), x(point.x.high)
    at = figure(point.x.value)
    if point.x.low < point.x.high:
        at += f" [{figure(point.x.low)}, {figure(point.x.high)}]"
    whiskers = [element("line", x1=px, x2=px, y1=bottom, y2=top, class_="whisker")]
    if right - left > 1:
        whiskers.append(element("line", x1=left, x2=right, y1=py, y2=py, class_="whisker"))
    mark = marker(point.style.marker, px, py, size=MARK)
    return group(
        [*whiskers, mark, tip(f"{point.label}: {spread(point.score)}, at {at}")], class_=f"{point.style.css} row"
    )


def _whiskers(point: Point, x: Scale, y: Scale) -> tuple[Box, Box]:
    px, py = x(point.x.value), y(100 * point.score["value"])
    upright = Box(px - 1, y(100 * point.score["high"]), px + 1, y(100 * point.score["low"]))
    return upright, Box(x(point.x.low), py - 1, x(point.x.high), py + 1)


def _labels(points: Sequence[Point], x: Scale, y: Scale) -> list[Markup]:
    """Labels at the nearest free position to their marks, with a leader line if further away."""
    centres = [(x(point.x.value), y(100 * point.score["value"])) for point in points]
    taken = [around(px, py, REACH) for px, py in centres]
    whiskers = [box for point in points for box in _whiskers(point, x, y)]
    parts = []
    for point, (px, py) in zip(points, centres, strict=True):

        def free(taken: Sequence[Box], name: str = point.label, px: float = px, py: float = py) -> LabelPlace | None:
            return place(name, px, py, font=FONT, reach=REACH, taken=taken, frame=FRAME, rings=RINGS)

        position = free([*taken, *whiskers]) or free(taken)  # if crowded, over a whisker, but never over a mark
        if position is None:  # the tooltip still shows it
            continue
        taken.append(position.box)
        near = Box(px - REACH - 3, py - REACH - 3, px + REACH + 3, py + REACH + 3)
        if not position.box.overlaps(near):
            end = (
                min(max(px, position.box.left), position.box.right),
                min(max(py, position.box.top), position.box.bottom),
            )
            parts.append(element("line", x1=px, y1=py, x2=end[0], y2=end[1], class_="leader"))
        parts.append(
            element("text", point.label, x=position.x, y=position.y, class_="label", text_anchor=position.anchor)
        )
    return parts
