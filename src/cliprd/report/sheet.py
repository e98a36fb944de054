"""The report of one student: its page, and the page's charts as separate files.

report.html                    the page of a comparison of this student and the teacher
retrieval.html                 examples of retrieval and classification
plots/<quantity>.svg           every loss term, learned scale, gradient norm and learning rate over the steps
confusion/<task>.svg           confusion matrices
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cliprd.files import atomic_write
from cliprd.names import key
from cliprd.report import blocks, palette
from cliprd.report.gather import gather
from cliprd.report.page import environment, render
from cliprd.report.runs import Grid


def write_sheet(folder: Path, grid: Grid, content: Mapping[str, Any], sections: Mapping[str, Any]) -> None:
    """Write the report.

    Args:
        folder: to write into.
        grid: the teacher and one method with one seed.
        content: of comparison.json, over that grid.
        sections: parameters to show on the page.
    """
    page = gather(grid, content, sections)
    (method,) = content["methods"]
    styles = palette.styles(content["methods"])
    _write(folder / "report.html", render(page))
    templates = environment()
    queries = templates.get_template("retrieval.html.j2").render(
        title=f"{method}, seed {content['seeds'][0]}",
        protocols=[content["protocol"]],
        styles=styles,
        swatch=palette.swatch,
        colours=palette.colours(),
        queries=blocks.queries(page),
        sightings=blocks.sightings(page),
    )
    _write(folder / "retrieval.html", queries)
    style = _style(templates)
    for panel in [*blocks.curves(page, styles), *blocks.scales(page, styles)]:
        _write(folder / "plots" / f"{key(panel['name'])}.svg", _alone(panel["chart"], style, 600))
    for one in blocks.confusions(page, content["protocol"], styles):
        for model, chart in one["maps"]:
            if model == method:
                _write(folder / "confusion" / f"{key(one['task'])}.svg", _alone(chart, style, 600))


def _write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def _style(templates: jinja2.Environment) -> str:
    return templates.get_template("style.css.j2").render(protocols=(), colours=palette.colours())


def _alone(chart: Markup, style: str, width: int) -> str:
    """A chart of the page as an SVG file, with namespace, size and the page's style."""
    text = str(chart)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None
    height = round(width * float(box[2]) / float(box[1]))
    size = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    inside = f"<style>/*<![CDATA[*/{style}svg{{background:var(--card)}}/*]]>*/</style>"
    head, _, rest = text.removeprefix("<svg ").partition(">")
    return f"{size}{head}>{inside}{rest}\n"
