"""Line and bar plots of benchmarks as SVG files, drawn with the report's own blocks; readable in light and in dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from cliprd.formatting import number
from cliprd.report.palette import DARK, LIGHT
from cliprd.report.svg import Scale, canvas, element, group

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 90, 34, 40
Points = Sequence[tuple[float, float]]


def lines(path: Path, label: str, panels: Mapping[str, Mapping[str, Points]], *, x_label: str) -> None:
    """Write a row of panels: title → series → points. Across is logarithmic, up starts at 0.

    Args:
        label: what a screen reader says.
        x_label: under each panel.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    parts = [Markup(f"<style>{_css(len(names))}</style>"), element("rect", width=WIDTH * len(panels), height=HEIGHT,
                                                                    rx=10, class_="bg")]  # fmt: skip
    for index, (title, series) in enumerate(panels.items()):
        parts.append(group(_panel(title, series, names, x_label), transform=f"translate({index * WIDTH} 0)"))
    drawn = canvas(
        WIDTH * len(panels), HEIGHT, parts, label=label, xmlns="http://www.w3.org/2000/svg",
        font_family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", font_size=12,
    )  # fmt: skip
    path.write_text(drawn + "\n", encoding="utf-8")


def bars(path: Path, title: str, marks: Sequence[tuple[str, float, float]]) -> None:
    """Write horizontal bars of (name, value, a line to pass), across a logarithmic scale from 1/2 on."""
    left, row, width = 430, 24, 2 * WIDTH
    height = TOP + row * len(marks) + BOTTOM
    x = Scale(0.5, 1.3 * max(value for _, value, _ in marks), left, width - 60, log=True)
    parts = [Markup(f"<style>{_css(2)}</style>"), element("rect", width=width, height=height, rx=10, class_="bg"),
             element("text", title, x=12, y=20, class_="title")]  # fmt: skip
    for tick in (0.5, 1, 2, 4, 8, 16, 32):
        if x(tick) <= width - 60:
            parts.append(element("line", x1=x(tick), x2=x(tick), y1=TOP, y2=height - BOTTOM + 4, class_="grid"))
            parts.append(
                element("text", f"{tick:g}×", x=x(tick), y=height - BOTTOM + 20, class_="tick", text_anchor="middle")
            )
    for number_, (name, value, wanted) in enumerate(marks):
        y = TOP + row * number_
        css = "s1" if value >= wanted else "s0"
        parts.append(element("text", name, x=left - 8, y=y + 16, class_="tick", text_anchor="end"))
        parts.append(element("rect", x=x(0.5), y=y + 5, width=x(value) - x(0.5), height=row - 9, class_=f"dot {css}"))
        parts.append(element("line", x1=x(wanted), x2=x(wanted), y1=y + 2, y2=y + row - 1, class_="goal"))
        parts.append(element("text", f"{value:.2g}", x=x(max(value, wanted)) + 6, y=y + 16, class_="title"))
    drawn = canvas(
        width, height, parts, label=title, xmlns="http://www.w3.org/2000/svg",
        font_family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", font_size=12,
    )  # fmt: skip
    path.write_text(drawn + "\n", encoding="utf-8")


def _panel(title: str, series: Mapping[str, Points], names: Sequence[str], x_label: str) -> list[Markup]:
    xs = [x for points in series.values() for x, _ in points]
    top = max(y for points in series.values() for _, y in points) * 1.1
    x = Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, log=True)
    y = Scale(0, top, HEIGHT - BOTTOM, TOP)
    parts = [element("text", title, x=LEFT, y=20, class_="title")]
    for tick in y.ticks(4):
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(element("text", number(tick), x=LEFT - 7, y=y(tick) + 4, class_="tick", text_anchor="end"))
    for tick in sorted(set(xs)):
        parts.append(
            element("text", number(tick), x=x(tick), y=HEIGHT - BOTTOM + 16, class_="tick", text_anchor="middle")
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(element("text", x_label, x=middle, y=HEIGHT - 8, class_="tick", text_anchor="middle"))
    beside = -1e9
    for name, points in sorted(series.items(), key=lambda item: item[1][-1][1]):
        css = f"s{names.index(name)}"
        path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
        parts.append(element("path", d=path, class_=f"line {css}"))
        parts += [element("circle", cx=x(a), cy=y(b), r=3, class_=f"dot {css}") for a, b in points]
        place = y(points[-1][1]) + 4
        place = place if beside < -1e8 else min(place, beside - 13)  # names do not lie on each other
        parts.append(element("text", name, x=WIDTH - RIGHT + 8, y=place, class_=f"name {css}"))
        beside = place
    return parts


def _css(series: int) -> str:
    def colours(palette: Sequence[str]) -> str:
        return "".join(f".s{i}{{--c:{palette[i % len(palette)]}}}" for i in range(series))

    return (
        ".goal{stroke:#243b53;stroke-width:2}.bg{fill:#fff}.title{fill:#243b53;font-weight:600}.tick{fill:#627d98}.grid{stroke:#d9e2ec}"
        f".line{{fill:none;stroke-width:2;stroke:var(--c)}}.dot,.name{{fill:var(--c)}}{colours(LIGHT)}"
        "@media (prefers-color-scheme: dark){.goal{stroke:#d9e2ec}.bg{fill:#0d1117}.title{fill:#d9e2ec}"
        ".tick{fill:#9fb3c8}"
        f".grid{{stroke:#243b53}}{colours(DARK)}}}"
    )
