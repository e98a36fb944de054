"""`index.html`: a self-contained page without requests, readable without scripts, in light, dark and print.

Text from data sets (captions, class and task names) is escaped by Jinja's autoescape and by `svg.element`; only markup
of these two is inserted unescaped. `blocks` prepares the data of the templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from cliprd.formatting import duration, figure, number, size
from cliprd.names import visible
from cliprd.report import blocks, palette, verdicts
from cliprd.report.charts.forest import points, spread
from cliprd.report.results import Page
from cliprd.report.table import RATES, SHORT_METRICS, coverage, notes

PROTOCOLS = {
    "standard": "every caption, each data set's own prompts",
    "paper": "first caption only, ImageNet's prompts everywhere",
}


def environment() -> jinja2.Environment:
    """The templates with their filters; inserted text is made visible and escaped."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("cliprd.report"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"points": points, "spread": spread, "share": "{:.0%}".format, "lines": _lines}
    templates.filters |= {
        "number": number,
        "count": "{:,}".format,
        "figure": figure,
        "size": size,
        "duration": duration,
    }
    return templates


def render(page: Page) -> str:
    """The page as HTML text."""
    comparison = page.comparison
    styles = palette.styles(comparison["methods"])
    protocols = [comparison["protocol"], *(p for p in comparison["protocols"] if p != comparison["protocol"])]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            comparison=comparison,
            protocols=protocols,
            about=PROTOCOLS,
            rates=RATES,
            metrics=SHORT_METRICS,
            styles=styles,
            swatch=palette.swatch,
            colours=palette.colours(),
            blocks={p: _protocol(page, p, styles) for p in protocols},
            coverage=coverage(comparison),
            curves=blocks.curves(page, styles),
            scales=blocks.scales(page, styles),
            speed={p: blocks.speed(page, p, styles) for p in protocols},
            costs=blocks.cost_rows(page),
            geometry=blocks.geometry(page, styles),
            layouts=blocks.layouts(page, styles),
            queries=blocks.queries(page),
            sightings=blocks.sightings(page),
        )
    )


def _protocol(page: Page, protocol: str, styles: Mapping[str, palette.Style]) -> dict[str, Any]:
    """The parts that differ between protocols: headline, cards, table, forest, confusion."""
    comparison = page.comparison
    scores = comparison["protocols"][protocol]
    contender = _contender(scores, comparison["reference"])
    return {
        "contender": contender,
        "badge": contender and verdicts.badge(scores, contender),
        "nothing": verdicts.nothing(scores),
        "leaders": verdicts.leaders(scores),
        "headline": scores["headline"],
        "notes": [coverage(comparison), *notes(comparison, "Marked “not above guessing”")],
        "scores": scores,
        "bars": blocks.bars(comparison, protocol, styles),
        "forest": blocks.forests(comparison, protocol, styles),
        "confusions": blocks.confusions(page, protocol, styles),
    }


def _contender(block: Mapping[str, Any], reference: str) -> str | None:
    """The best method other than the reference, whose difference gets a card."""
    others = [method for method in block["methods"] if method != reference]
    return max(others, key=lambda method: block["methods"][method]["mean"]["value"], default=None)


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(value: str) -> Markup:
    """Text of several lines, for `<pre>`."""
    return Markup("\n").join(map(escape, map(visible, value.split("\n"))))
