"""What comes after a training: a student's scores and pictures in its run, and a comparison's report in the parent's.

Each is logged once, and a tag that is set last says so; so a call that the server missed is made good by the next one.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.names import key
from cliprd.params import Params
from cliprd.report.table import left_out as in_words
from cliprd.storage import Location
from cliprd.tracking import server
from cliprd.tracking.election import PARENT
from cliprd.tracking.runs import flush

BENCHMARK = "cliprd.benchmark"  # tag: fingerprint of the benchmark that was logged
LEFT_OUT = "cliprd.left_out"  # tag: tasks that were not scored, each with its reason
COMPARISON = "cliprd.comparison"  # tag: fingerprint of the comparison that was logged
STANDING = "cliprd.standing"  # tag of a training: whether its mean is above guessing, in words; `.<protocol>`: by each
HEADLINE = "cliprd.verdict"  # tag of an ablation: the comparison's headline
VERDICTS = "cliprd.verdicts"  # tag of an ablation: `_verdicts` as JSON
MOST = 1000  # metrics in one request: MLflow's limit
PARTS = ("low", "high", "guessing", "majority", "floor")
MOST_TAGGED = 4500  # characters; MLflow's database holds 5,000 in a tag
Draw = Callable[[Path], Mapping[str, Mapping[str, Any]]]


def log_scores(params: Params, student: Path, benchmark: str, draw: Draw, left_out: str = "") -> None:
    """Send what the student's training has left to send, then its scores and pictures.

    Args:
        params: `tracking` is used.
        student: the student's folder, which knows its run.
        benchmark: fingerprint of its benchmark.
        draw: writes the files to log into a folder and gives the scores, name → {"value", "low", "high"} (`mean`,
            `<task>`, `<task>/<protocol>/<metric>`): the metrics `score/<name>`, `low/<name>` and `high/<name>`, and
            `guessing/<task>`, `majority/<task>` and `floor/mean` where they have these. A mean's `standing` becomes a
            tag of the run. Called only where they are not logged yet.
        left_out: tasks that were not scored, in words.
    """
    try:
        run_id = flush(params, student)
        if run_id is None:
            return
        client = server.connect(params.tracking.uri)
        if client.get_run(run_id).data.tags.get(BENCHMARK) == benchmark:
            return
        with tempfile.TemporaryDirectory(prefix="cliprd-sheet-") as folder:
            found = draw(Path(folder))
            _log_metrics(client, run_id, score_metrics(found))
            client.log_artifacts(run_id, folder)
        for name, score in found.items():
            if "standing" in score:
                client.set_tag(run_id, STANDING + name.removeprefix("mean").replace("/", "."), score["standing"])
        _tag_left_out(client, run_id, left_out)
        client.set_tag(run_id, BENCHMARK, benchmark)
    except Exception as error:  # whatever a server or network can raise: the benchmark is worth more than its log
        server.warn(f"the scores of {student.name} are not tracked", error, "`cliprd compare` sends them.")


def log_report(params: Params, comparison: Location, content: Mapping[str, Any], students: Iterable[Path]) -> None:
    """Log a comparison's files and the methods' means in its students' parent run; in each, where they have several.

    Args:
        params: `tracking` is used.
        comparison: the finished folder of `compare`.
        content: of its comparison.json.
        students: the folders compared.
    """
    if not params.tracking.uri:
        return
    try:
        runs = [run_id for student in students if (run_id := flush(params, student)) is not None]
        if not runs:
            return
        client = server.connect(params.tracking.uri)
        fingerprint = manifest.read(comparison, stage="compare").fingerprint
        parents = {client.get_run(run_id).data.tags.get(PARENT) for run_id in runs} - {None}
        for parent in sorted(parents):
            if client.get_run(parent).data.tags.get(COMPARISON) == fingerprint:
                continue
            _log_metrics(client, parent, score_metrics(_means(content)))
            block = content["protocols"][content["protocol"]]
            client.set_tag(parent, HEADLINE, block["headline"])
            client.set_tag(parent, VERDICTS, json.dumps(_verdicts(content), sort_keys=True))
            folder = fetch_folder(comparison)
            for file in ("comparison.md", "comparison.json", "index.html"):
                client.log_artifact(parent, str(folder / file), "report")
            _tag_left_out(client, parent, in_words(content.get("left_out", {})))
            client.set_tag(parent, COMPARISON, fingerprint)
    except Exception as error:
        server.warn("the report is not tracked", error, "The same `cliprd compare` again sends it.")


def score_metrics(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """`score/<name>`, the ends of its interval as `low/<name>` and `high/<name>`, and what needs no model; names as
    `names.key` has them."""
    metrics: dict[str, float] = {}
    for name, score in ((key(name), score) for name, score in scores.items()):
        metrics[f"score/{name}"] = float(score["value"])
        metrics |= {f"{end}/{name}": float(score[end]) for end in PARTS if score.get(end) is not None}
    return metrics


def _means(content: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """`mean/<method>` of all, `difference/<method>` to the reference."""
    block = content["protocols"][content["protocol"]]
    found = {
        f"mean/{method}": entry["mean"] for method, entry in {"teacher": block["teacher"], **block["methods"]}.items()
    }
    for method, entry in block["methods"].items():
        if "difference" in entry:
            found[f"difference/{method}"] = entry["difference"]["mean"]
    return found


def _verdicts(content: Mapping[str, Any]) -> dict[str, Any]:
    """`{"protocol", "confidence", "covers", "reference", "seeds": n, "methods": {METHOD: word},
    "not_above_guessing": [MODEL]}`."""
    block = content["protocols"][content["protocol"]]
    models = {"teacher": block["teacher"], **block["methods"]}
    return {
        "protocol": content["protocol"],
        "confidence": content["confidence"],
        "covers": content["interval_covers"],
        "reference": content["reference"],
        "seeds": len(content["seeds"]),
        "methods": {method: entry.get("verdict", "reference") for method, entry in block["methods"].items()},
        "not_above_guessing": [model for model, entry in models.items() if not entry["above_guessing"]["mean"]],
    }


def _tag_left_out(client: Any, run_id: str, left_out: str) -> None:
    if client.get_run(run_id).data.tags.get(LEFT_OUT, "") != left_out[:MOST_TAGGED]:
        client.set_tag(run_id, LEFT_OUT, left_out[:MOST_TAGGED])


def _log_metrics(client: Any, run_id: str, metrics: Mapping[str, float]) -> None:
    """Those that the run does not have like that; in requests that are taken as a whole."""
    from mlflow.entities import Metric

    known, now = client.get_run(run_id).data.metrics, int(time.time() * 1000)
    new: Sequence[Any] = [Metric(key, value, now, 0) for key, value in metrics.items() if known.get(key) != value]
    for start in range(0, len(new), MOST):
        client.log_batch(run_id, metrics=new[start : start + MOST])
