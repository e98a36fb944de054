"""An ablation's runs side by side: as a table in the terminal, and as MLflow's page with the same columns.

What MLflow's page shows (columns, charts, order, filter) is a state that its "Share" button keeps in a tag of the
experiment, `mlflow.sharedViewState.<key>`, and names in the address as `viewStateShareKey`. The same is done here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliprd import files
from cliprd.errors import CliprdError, InputError, ParamsError, RetryableError
from cliprd.formatting import figure
from cliprd.names import visible
from cliprd.params import Params
from cliprd.report.charts.forest import spread
from cliprd.report.verdicts import NOT_ABOVE
from cliprd.statistics.aggregate import SEEDS
from cliprd.tracking import election, scores, server
from cliprd.tracking.parent import MEMBER
from cliprd.tracking.training import CHILDREN, KIND, NOTE

TERMS = ("total", "task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text", "xrd")  # the order of columns
SHARED_VIEW = "mlflow.sharedViewState."


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One training, or one method's mean over its seeds.

    Attributes:
        score: {"value", "low", "high"} of the mean over tasks; None before it was benchmarked.
        difference: of the method to the reference, in the same shape.
        verdict: `better`, `worse`, `open`, `reference`, or that there is none, `not above guessing`.
        terms: last value of each loss term.
        step: of these values.
    """

    name: str
    status: str
    score: Mapping[str, float] | None = None
    difference: Mapping[str, float] | None = None
    verdict: str = ""
    terms: Mapping[str, float]
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class AblationTable:
    """One ablation.

    Attributes:
        methods: means over seeds, of the last comparison; empty before one.
        runs: every training.
        headline: of the last comparison.
        about: its intervals: their level and what they cover.
    """

    name: str
    note: str
    headline: str = ""
    about: str = ""
    methods: Sequence[AblationRow]
    runs: Sequence[AblationRow]


def tables(params: Params) -> list[AblationTable]:
    """The ablations of `tracking.experiment`, the newest first; in each the best is first.

    Raises:
        ParamsError: tracking is off. InputError: no training was tracked there. RetryableError: the server is away.
    """
    client, place = _open(params)
    parents = election.every(client, place, f"tags.`{KIND}` = 'ablation'")
    found = [
        (parent.info.start_time, _table(parent.info.run_name, parent, parent, runs))
        for parent in parents
        if (runs := election.children(client, place, parent.info.run_id))
    ]
    members: dict[str, list[Any]] = {}
    for run in election.every(client, place, f"tags.`{MEMBER}` LIKE '%'"):
        members.setdefault(run.data.tags[MEMBER], []).append(run)
    for key, group in members.items():
        group.sort(key=lambda run: run.info.start_time)
        if runs := [run for run in group if run.data.tags[KIND] == "training"]:
            compared = next((run for run in reversed(group) if scores.VERDICTS in run.data.tags), runs[0])
            found.append((runs[0].info.start_time, _table(f"ablation-{key[:8]}", runs[0], compared, runs)))
    if not found:
        raise _nothing(params)
    return [table for _, table in sorted(found, key=lambda pair: -pair[0])]


def _table(name: str, noted: Any, compared: Any, trainings: Iterable[Any]) -> AblationTable:
    """Of an ablation's trainings.

    Args:
        noted: the run whose note describes it.
        compared: the run that has its last comparison, if there was one.
    """
    tags = compared.data.tags
    verdicts = json.loads(tags.get(scores.VERDICTS, "{}"))
    return AblationTable(
        name=name,
        note=noted.data.tags.get(NOTE, "").split(CHILDREN)[0],
        headline=tags.get(scores.HEADLINE, ""),
        about=_about(verdicts),
        methods=_sorted(_methods(compared.data.metrics, verdicts)),
        runs=_sorted(_row(run, verdicts.get("protocol", "")) for run in trainings),
    )


def text(found: Iterable[AblationTable]) -> str:
    """For a terminal."""
    parts = []
    for table in found:
        parts.append(visible(f"{table.name}: {table.note}") + "\n")
        if table.methods:
            parts.extend(f"{line}\n" for line in (table.headline, table.about) if line)
            rows = [
                [row.name, _spread(row.score), _spread(row.difference, sign=True), row.verdict] for row in table.methods
            ]
            parts.append(_columns(["method", "mean", "difference", "verdict"], rows))
        terms = [term for term in TERMS if any(term in row.terms for row in table.runs)]
        terms += sorted({term for row in table.runs for term in row.terms} - set(terms))
        rows = [
            [row.name, row.status.lower(), _spread(row.score), row.verdict, str(row.step)]
            + [figure(row.terms[term]) if term in row.terms else "" for term in terms]
            for row in table.runs
        ]
        parts.append(_columns(["run", "status", "mean", "", "step", *terms], rows))
    return "\n".join(parts)


def page(params: Params) -> str:
    """The address of MLflow's page of `tracking.experiment`: its trainings, best first, with what tells arms apart.

    Raises:
        As `tables`.
    """
    client, place = _open(params)
    runs = election.every(client, place, f"tags.`{KIND}` = 'training'")
    if not runs:
        raise _nothing(params)
    state = view(
        sorted({key for run in runs for key in (*run.data.metrics, *(f"params/{p}" for p in run.data.params))})
    )
    key = files.digest(state)[:20]
    client.set_experiment_tag(place, SHARED_VIEW + key, json.dumps(state, separators=(",", ":")))
    uri = params.tracking.uri
    root = uri.rstrip("/") if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    return f"{root}/#/experiments/{place}/runs?viewStateShareKey={key}"


def view(keys: Sequence[str]) -> dict[str, Any]:
    """The state of MLflow's page.

    Args:
        keys: names of the metrics that the runs have, and `params/<name>` of their parameters.
    """
    tasks = [key for key in keys if key.startswith("score/") and key.count("/") == 1 and key != "score/mean"]
    terms = [f"loss/{term}" for term in TERMS if f"loss/{term}" in keys]
    terms += sorted(key for key in keys if key.startswith("loss/") and key not in terms)  # users' own
    weights = [f"weight/{term}" for term in ("vrd", "vrd_ce", "xrd") if f"params/weight/{term}" in keys]
    last = [key for key in ("loss/total", "loss/vrd", "loss/xrd") if key in terms]
    columns = [_column("metrics", key) for key in ("score/mean", "low/mean", "high/mean", "floor/mean", *tasks)]
    columns += [_column("params", key) for key in ("method", "scale_mode", "seed", *weights)]
    columns += [_column("metrics", key) for key in last]
    columns += [_column("tags", "mlflow.source.git.commit"), _column("attributes", "Dataset")]
    lines = [*last, *(key for key in terms if key not in last), *(key for key in keys if key.startswith("scale/"))]
    return {
        "searchFilter": f"tags.`{KIND}` = 'training'",
        "orderByKey": _column("metrics", "score/mean"),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [_column("attributes", "Version") if "git.commit" in name else name for name in columns],
        "columnOrder": columns,
        "columnWidths": {name: max(96, 24 + 8 * len(name.split("`")[1])) for name in columns[:-2]},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [
            {"uuid": "cliprd", "name": "cliprd", "display": True, "isReordered": False, "deleted": False,
             "isGenerated": False},
        ],
        "compareRunCharts": [
            *(_chart("BAR", key) for key in ("score/mean", *tasks)),
            *(_line(key) for key in (*lines, "grad_norm")),
        ],
        "isAccordionReordered": True,
    }  # fmt: skip


def _column(kind: str, key: str) -> str:
    return f"{kind}.`{key}`"


def _chart(kind: str, key: str) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"cliprd-{key}",
        "metricSectionId": "cliprd",
        "deleted": False,
        "isGenerated": False,
        "metricKey": key,
        "displayName": key,
        "runsCountToCompare": 100,
    }


def _line(key: str) -> dict[str, Any]:
    return {
        **_chart("LINE", key),
        "scaleType": "linear",
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "selectedMetricKeys": [key],
        "selectedYAxisMetricKey": key,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": True,
        "useGlobalXaxisKey": True,
        "range": {},
        "ignoreOutliers": False,
    }


def _open(params: Params) -> tuple[Any, str]:
    uri = params.tracking.uri
    if not uri:
        raise ParamsError("tracking.uri is empty: nothing is tracked.", "Set it to the server's address.")
    try:
        client = server.connect(uri)
        found = client.get_experiment_by_name(params.tracking.experiment)
    except CliprdError:
        raise
    except Exception as error:
        reason = server.clean(str(error))[:200]
        raise RetryableError(f"MLflow at {server.shown(uri)} does not answer: {reason}", "Start it.") from error
    if found is None:
        raise _nothing(params)
    return client, str(found.experiment_id)


def _nothing(params: Params) -> InputError:
    return InputError(
        f"No training is tracked in experiment '{params.tracking.experiment}' at {server.shown(params.tracking.uri)}.",
        "Run `cliprd distill` or `dvc repro`, or name another with --experiment.",
    )


def _row(run: Any, protocol: str) -> AblationRow:
    """A training; its mean by the protocol of the last comparison, so that both tables speak of the same scores."""
    metrics = run.data.metrics
    by = f"/{protocol}" if f"score/mean/{protocol}" in metrics else ""
    terms = {key.removeprefix("loss/"): value for key, value in metrics.items() if key.startswith("loss/")}
    steps = [metric.step for metric in run.data._metric_objs if metric.key == "loss/total"]
    low = NOT_ABOVE if NOT_ABOVE in run.data.tags.get(scores.STANDING + by.replace("/", "."), "") else ""
    return AblationRow(
        name=run.info.run_name, status=run.info.status, score=_interval(metrics, f"mean{by}"), terms=terms, verdict=low,
        step=max(steps, default=0),
    )  # fmt: skip


def _methods(metrics: Mapping[str, float], verdicts: Mapping[str, Any]) -> Iterable[AblationRow]:
    """The models of the last comparison; metrics of earlier ones, of other methods or another reference, may remain."""
    if not verdicts:
        return
    nothing = "teacher" in verdicts["not_above_guessing"]
    for name in ("teacher", *verdicts["methods"]):
        word = verdicts["methods"].get(name, "")
        word = "nothing to distil" if nothing and word not in ("", "reference") else word
        difference = None if word in ("", "reference") else _interval(metrics, f"difference/{name}")
        low = f"{word + ', ' if word else ''}{NOT_ABOVE}"
        yield AblationRow(
            name=name, status="", score=_interval(metrics, f"mean/{name}"), difference=difference, terms={},
            verdict=low if name in verdicts["not_above_guessing"] else word,
        )  # fmt: skip


def _about(verdicts: Mapping[str, Any]) -> str:
    if not verdicts:
        return ""
    speak = "" if verdicts["covers"] == SEEDS else ": they are about these trainings, not methods"
    by = f"Protocol {verdicts['protocol']}; " if "protocol" in verdicts else ""
    return f"{by}{100 * verdicts['confidence']:g}% intervals over {verdicts['covers']}{speak}."


def _interval(metrics: Mapping[str, float], name: str) -> dict[str, float] | None:
    if f"score/{name}" not in metrics:
        return None
    value = metrics[f"score/{name}"]
    return {"value": value, "low": metrics.get(f"low/{name}", value), "high": metrics.get(f"high/{name}", value)}


def _sorted(rows: Iterable[AblationRow]) -> list[AblationRow]:
    return sorted(rows, key=lambda row: (row.score is None, -(row.score or {}).get("value", 0.0), row.name))


def _spread(score: Mapping[str, float] | None, *, sign: bool = False) -> str:
    """In points, as the report has it."""
    return spread(score, sign=sign) if score else ""


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[visible(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    shown = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in shown) + "\n"
