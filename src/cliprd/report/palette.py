"""The style of each method in all charts: colour, marker and dash, so that charts are readable without colour.

Colours also differ in lightness, for the common kinds of colour blindness, and have at least 3:1 contrast with the page
in light and dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cliprd.report.svg import element

LIGHT = ("#b86e00", "#0067b1", "#00805f", "#a8328f", "#2a8fb8", "#8a6a12", "#c23b3b", "#5a5ad0")
DARK = ("#f0a93c", "#5cb0f2", "#2fc79e", "#e58ad6", "#7fd0ee", "#d9bd62", "#f08a84", "#a3a3f5")
MARKERS = ("circle", "square", "diamond", "triangle", "down", "cross", "circle", "square")
DASHES = (None, "7 3", "2 3")

PREFERRED = {"baseline": 0, "clip_kd": 1, "clip_rd": 2, "clip_rd-raw": 2, "clip_rd-exp": 3, "vrd": 4, "xrd": 5}


@dataclass(frozen=True)
class Style:
    """Style of a series: `css` is the class with the colour."""

    css: str
    marker: str
    dash: str | None = None


TEACHER = Style("teacher", "star")


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """The teacher's style, then one per method.

    A method keeps its colour whatever other methods are shown, unless two would clash.
    """
    taken: dict[str, int] = {}
    for method in methods:
        preferred = PREFERRED.get(method)
        if preferred is not None and preferred not in taken.values():
            taken[method] = preferred
    free = [i for i in range(len(LIGHT)) if i not in taken.values()]
    overflow = 0
    for method in methods:
        if method not in taken:
            taken[method] = free.pop(0) if free else len(LIGHT) + overflow
            overflow += method in taken and taken[method] >= len(LIGHT)
    return {"teacher": TEACHER} | {
        method: Style(
            f"m{taken[method] % len(LIGHT)}",
            MARKERS[taken[method] % len(LIGHT)],
            DASHES[taken[method] // len(LIGHT) % 3],
        )
        for method in methods
    }


def colours() -> Markup:
    """The palette as CSS: one class a series, with its colours in light and dark mode."""
    light = "".join(f".m{i}{{--c:{value}}}" for i, value in enumerate(LIGHT))
    dark = "".join(f".m{i}{{--c:{value}}}" for i, value in enumerate(DARK))
    return Markup(f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}")  # noqa: S704 — constants of this module


def marker(shape: str, x: float, y: float, *children: Markup, size: float = 4.5, class_: str = "mark") -> Markup:
    """A filled marker of about equal visual weight in every shape, centred at (x, y)."""
    r = size
    if shape == "circle":
        return element("circle", *children, cx=x, cy=y, r=r, class_=class_)
    outlines = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "triangle": [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        "down": [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        "cross": [
            (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
            (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4),
        ],
        "star": [
            (0, -1.5), (0.38, -0.5), (1.43, -0.46), (0.61, 0.2), (0.88, 1.21),
            (0, 0.63), (-0.88, 1.21), (-0.61, 0.2), (-1.43, -0.46), (-0.38, -0.5),
        ],
    }  # fmt: skip
    points = " ".join(f"{x + dx * r:.2f},{y + dy * r:.2f}" for dx, dy in outlines[shape])
    return element("polygon", *children, points=points, class_=class_)


def swatch(style: Style) -> Markup:
    """The marker as a small picture for legends and tables."""
    return element(
        "svg", marker(style.marker, 8, 8, size=5), viewBox="0 0 16 16", class_=f"swatch {style.css}", aria_hidden="true"
    )
