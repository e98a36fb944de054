"""Confusion matrices as heat maps."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cliprd.report.svg import canvas, element, group, tip

CELL = 16
FONT = 6.3  # average width in pixels of a character of the labels


def short(text: str, most: int = 14) -> str:
    """At most `most` characters, the rest as an ellipsis."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def heatmap(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]], *, css: str) -> Markup:
    """Rows are the true classes, columns the predicted ones; a cell's strength is its share of the row.

    Empty cells are not drawn. The diagonal is outlined, and right answers and mistakes have different hues, so that a
    mistake stands out however rare it is.
    """
    names = [short(name) for name in classes]
    margin = round(max(map(len, names), default=0) * FONT) + 10
    side = len(classes) * CELL
    parts = [element("rect", x=margin, y=0, width=side, height=side, class_="plate")]
    for i, name in enumerate(names):
        middle = i * CELL + CELL / 2
        parts.append(element("text", name, x=margin - 5, y=middle + 3.5, class_="label", text_anchor="end"))
        turn = f"translate({margin + middle + 3.5:.1f} {side + 6}) rotate(-90)"
        parts.append(element("text", name, transform=turn, class_="label", text_anchor="end"))
    for i, row in enumerate(counts):
        total = sum(row) or 1
        parts += [_cell(classes, i, j, count, total, margin) for j, count in enumerate(row) if count]
    return canvas(
        margin + side + 2,
        side + margin,
        [group(parts)],
        label=f"Confusion matrix of {title}",
        class_=f"chart matrix {css}",
    )


def _cell(classes: Sequence[str], true: int, predicted: int, count: int, total: int, margin: int) -> Markup:
    share = count / total
    right = true == predicted
    verb = "recognised" if right else f"taken for {classes[predicted]}"
    return element(
        "rect",
        tip(f"{classes[true]} {verb}: {count} of {total} ({share:.0%})"),
        x=margin + predicted * CELL + 0.5,
        y=true * CELL + 0.5,
        width=CELL - 1,
        height=CELL - 1,
        rx=1.5,
        fill_opacity=f"{0.12 + 0.88 * share:.2f}",
        class_="right" if right else "wrong",
    )
