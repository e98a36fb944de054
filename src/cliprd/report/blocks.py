"""Data of the templates: each function turns plain results into charts and rows of one section."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from markupsafe import Markup

from cliprd.report.charts import curves as curve_chart
from cliprd.report.charts import density, forest, layout, matrix, tradeoff
from cliprd.report.palette import Style
from cliprd.report.results import TEACHER, Measured, Page
from cliprd.report.svg import padded

Styles = Mapping[str, Style]
T = TypeVar("T")

TERMS = {
    "loss": "total: the sum of the weighted terms",
    "task": "image-text contrast of the student itself",
    "hrd": "same similarity distributions as the teacher (CLIP-KD's CRD)",
    "icl": "student against teacher embeddings, contrasted both ways",
    "fd": "squared distance to the teacher's embeddings",
    "vrd": "image-side relations follow the text side",
    "vrd_ce_image": "contrast behind vrd, images",
    "vrd_ce_text": "contrast behind vrd, texts",
    "xrd": "cross-modal relations agree with each other",
}
SCALES = {
    "student_scale": "student's logit scale",
    "cross_scale": "σ× of icl and xrd",
    "image_scale": "σI of vrd",
    "text_scale": "σT of vrd",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
}


def bars(comparison: Mapping[str, Any], protocol: str, styles: Styles) -> dict[str, dict[str, Markup]]:
    """Model → column (a task, or `mean`) → the cell's bar; a column's scale ends at its highest upper end."""
    block = comparison["protocols"][protocol]
    models = {TEACHER: block["teacher"], **block["methods"]}
    cells_of: dict[str, dict[str, Markup]] = defaultdict(dict)
    for column in ("mean", *comparison["tasks"]):
        cells = {m: entry["mean"] if column == "mean" else entry["tasks"][column] for m, entry in models.items()}
        top = max(cell["high"] for cell in cells.values())
        for model, cell in cells.items():
            cells_of[model][column] = forest.bar(cell, styles[model], top=top)
    return dict(cells_of)


def forests(comparison: Mapping[str, Any], protocol: str, styles: Styles) -> list[tuple[str, Markup]]:
    """(title, plot) of the paired differences: the mean over tasks first, then each task."""
    block = comparison["protocols"][protocol]["methods"]
    rows: dict[str, list[forest.ForestRow]] = defaultdict(list)
    for method, entry in block.items():
        if "difference" in entry:
            rows["Mean over tasks"].append(forest.ForestRow(method, styles[method], entry["difference"]["mean"]))
            for task, cell in entry["difference"]["tasks"].items():
                rows[task].append(forest.ForestRow(method, styles[method], cell))
    return [(title, forest.forest(title, these, forest.domain(these))) for title, these in rows.items()]


def _series(page: Page, column: str, styles: Styles) -> list[curve_chart.Series]:
    lines = []
    for history in page.histories:
        if column in history.columns:
            label = history.method if len(page.comparison["seeds"]) == 1 else f"{history.method}, seed {history.seed}"
            line = curve_chart.Series(label, styles[history.method], history.columns["step"], history.columns[column])
            lines.append(line)
    return lines


def _panels(page: Page, names: list[str], descriptions: Mapping[str, str], styles: Styles) -> list[dict[str, Any]]:
    panels = []
    for name in names:
        series = _series(page, name, styles)
        if series:
            panels.append({"name": name, "about": descriptions.get(name, ""), "chart": curve_chart.panel(name, series)})
    return panels


def curves(page: Page, styles: Styles) -> list[dict[str, Any]]:
    """A panel per loss term that any method has, the total first."""
    terms = list(dict.fromkeys(term for history in page.histories for term in history.terms))
    order = [*TERMS, *(t for t in terms if t not in TERMS)]
    return _panels(page, ["loss", *sorted(terms, key=order.index)], TERMS, styles)


def scales(page: Page, styles: Styles) -> list[dict[str, Any]]:
    """A panel per learned scale, then gradient norm and learning rate."""
    names = list(dict.fromkeys(scale for history in page.histories for scale in history.scales))
    return _panels(page, [*names, "grad_norm", "lr"], SCALES, styles)


def speed(page: Page, protocol: str, styles: Styles) -> list[tuple[str, Markup]]:
    """(title, chart) of score against images per second where measured, and against parameters.

    Models of one architecture are one point, at the best one's score: they cost the same, and their timings differ
    only by noise.
    """
    block = page.comparison["protocols"][protocol]
    models = {TEACHER: block["teacher"], **block["methods"]}
    charts = []
    for title, axis, value in (
        ("Score against speed", "images per second (log)", "images_per_second"),
        ("Score against size", "parameters (log)", "parameters"),
    ):
        measured = [model for model in models if model in page.costs and getattr(page.costs[model], value)]
        groups = _grouped(measured, lambda model: page.costs[model].architecture or model)
        marks = []
        for alike in groups.values():
            best = max(alike, key=lambda model: models[model]["mean"]["value"])
            label = best if len(alike) == 1 else f"{best}, best of {len(alike)}"
            x = getattr(page.costs[best], value)
            x = x if isinstance(x, Measured) else Measured(value=x, low=x, high=x, count=1)
            marks.append(tradeoff.Point(label, styles[best], x, models[best]["mean"]))
        if marks:
            charts.append((title, tradeoff.tradeoff(marks, x_label=axis)))
    return charts


def cost_rows(page: Page) -> list[list[tuple[str, Any]]]:
    """(model, Cost) by architecture, the teacher's first."""
    models = (TEACHER, *page.comparison["methods"])
    costs = [(model, page.costs[model]) for model in models if model in page.costs]
    return list(_grouped(costs, lambda entry: entry[1].architecture or entry[0]).values())


def confusions(page: Page, protocol: str, styles: Styles) -> list[dict[str, Any]]:
    """Per task: a heat map per model, or for many classes, each model's most frequent mistakes."""
    sections = []
    for one in page.confusions:
        if one.protocol != protocol:
            continue
        maps = [
            (model, matrix.heatmap(f"{model} on {one.task}", one.classes, counts.tolist(), css=styles[model].css))
            for model, counts in one.counts.items()
        ]
        sections.append({"task": one.task, "classes": len(one.classes), "maps": maps, "pairs": dict(one.pairs)})
    return sections


def geometry(page: Page, styles: Styles) -> list[dict[str, Any]]:
    """Per kind of pair: a density per method, all on the same axes."""
    sections = []
    for towers, members in _grouped(page.geometry, lambda one: one.towers).items():
        reach = padded(float(end) for m in members for s in (m.teacher, m.student) for end in (s.min(), s.max()))
        charts = [
            {
                "method": m.method,
                "spearman": m.spearman,
                "cka": m.cka,
                "chart": density.hexbin(
                    f"{towers} similarities, teacher against {m.method}",
                    m.teacher, m.student, styles[m.method], reach, x_label="teacher", y_label="student",
                ),
            }
            for m in members
        ]  # fmt: skip
        sections.append({"towers": towers, "pairs": len(members[0].teacher), "charts": charts})
    return sections


def layouts(page: Page, styles: Styles) -> list[dict[str, Any]]:
    """Per classification task: a map of its classes per method."""
    return [
        {
            "task": one.task,
            "charts": [
                {
                    "method": method,
                    "kept": one.kept[method],
                    "chart": layout.drift(
                        f"Class means of {one.task}, teacher against {method}",
                        one.classes,
                        one.teacher,
                        where,
                        styles[method],
                    ),
                }
                for method, where in one.students.items()
            ],
        }
        for one in page.layouts
    ]


def sightings(page: Page) -> list[tuple[str, list[Any]]]:
    """(task, pictures with answers)."""
    return list(_grouped(page.sightings, lambda sighting: sighting.task).items())


def queries(page: Page) -> list[tuple[str, list[Any]]]:
    """(kind, queries) in the order in which kinds first appear."""
    return list(_grouped(page.queries, lambda query: query.kind).items())


def _grouped(items: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Key → the items that have it, in the order in which keys first appear."""
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)
