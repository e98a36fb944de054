"""Confusion matrices as heat maps."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cliprd.names import visible
from cliprd.report.charts.labels import width
from cliprd.report.svg import canvas, element, group, tip

WIDTH = 300
FONT, LONGEST = 10.5, 92.0  # of the labels, in pixels
MOST = 100  # characters of a label, since combining marks have no width


def short(text: str) -> str:
    """A name cut to `LONGEST` pixels, with an ellipsis."""
    text = visible(text)
    if len(text) <= MOST and width(text, FONT) <= LONGEST:
        return text
    text = text[:MOST]
    while width(text + "…", FONT) > LONGEST:
        text = text[:-1]
    return text.rstrip() + "…"


def heatmap(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]], *, css: str) -> Markup:
    """Rows are the true classes, columns the predicted ones; a cell's opacity is its share of the row.

    Empty cells are not drawn. Right answers and mistakes differ in hue, and lie on or off the diagonal.
    """
    names = [short(name) for name in classes]
    margin = round(max((width(name, FONT) for name in names), default=0)) + 8
    cell = (WIDTH - margin) / max(len(classes), 1)
    side = WIDTH - margin
    parts = [element("rect", x=margin, y=0, width=side, height=side, class_="plate")]
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        parts.append(element("text", name, x=margin - 5, y=middle + 3.2, class_="label", text_anchor="end"))
        turn = f"translate({margin + middle + 3.2:.1f} {side + 5}) rotate(-90)"
        parts.append(element("text", name, transform=turn, class_="label", text_anchor="end"))
    for i, row in enumerate(counts):
        total = sum(row) or 1
        parts += [_cell(classes, i, j, count, total, margin, cell) for j, count in enumerate(row) if count]
    return canvas(WIDTH, WIDTH, [group(parts)], label=f"Confusion matrix of {title}", class_=f"chart matrix {css}")


def _cell(
    classes: Sequence[str], actual: int, predicted: int, count: int, total: int, margin: int, cell: float
) -> Markup:
    share = count / total
    right = actual == predicted
    verb = "recognised" if right else f"taken for {classes[predicted]}"
    return element(
        "rect",
        tip(f"{classes[actual]} {verb}: {count} of {total} ({share:.0%})"),
        x=margin + predicted * cell + 0.5,
        y=actual * cell + 0.5,
        width=cell - 1,
        height=cell - 1,
        rx=1.5,
        fill_opacity=f"{0.08 + 0.92 * share:.2f}",
        class_="right" if right else "wrong",
    )
