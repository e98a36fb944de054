"""What comes after a training: a student's scores and pictures in its run, and a comparison's report in the parent's.

Both are read from the finished folders of `benchmark` and `compare`. Each is logged once, and a tag that is set last
says so; what the server missed is logged by the next command that reads these folders.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.pointer import resolve
from cliprd.names import key
from cliprd.params import Params
from cliprd.reading import parse_json
from cliprd.report import comparison, standing, verdicts
from cliprd.report.results import TEACHER
from cliprd.report.runs import Grid, Run
from cliprd.report.sheet import write_sheet
from cliprd.report.table import left_out as in_words
from cliprd.statistics.bootstrap import Settings
from cliprd.storage import Location
from cliprd.tracking import election, parent, server
from cliprd.tracking.runs import catch_up
from cliprd.tracking.training import KIND

BENCHMARK = "cliprd.benchmark"  # tag: fingerprint of the benchmark that was logged
LEFT_OUT = "cliprd.left_out"  # tag: tasks that were not scored, each with its reason
COMPARISON = "cliprd.comparison"  # tag: fingerprint of the comparison that was logged
STANDING = "cliprd.standing"  # tag of a training: whether its mean is above guessing, in words; `.<protocol>`: by each
HEADLINE = "cliprd.verdict"  # tag of an ablation: the comparison's headline
VERDICTS = "cliprd.verdicts"  # tag of an ablation: `_verdicts` as JSON
PARTS = ("low", "high", "guessing", "majority", "floor")
MOST_TAGGED = 4500  # characters; MLflow's database holds 5,000 in a tag


def log_scores(params: Params, student: Location, benchmark: Location, teacher: Location | None) -> str | None:
    """Send what MLflow lacks of a student's training, then its scores and pictures; returns its run's id.

    Metrics are those of `score_metrics` and `summary`; a mean's `standing` becomes a tag of the run.

    Args:
        params: `tracking` is used.
        student: its folder, which knows its run; nothing happens where it is a teacher's, or was never tracked.
        benchmark: its finished benchmark.
        teacher: the benchmark that it is compared with in its pictures; None: there are none.
    """
    run_id = None
    try:
        trained = manifest.read(resolve(student))
        if trained.stage != "distill" or (run_id := catch_up(params, student)) is None:
            return None
        client = server.connect(params.tracking.uri)
        scored = manifest.read(resolve(benchmark), stage="benchmark")
        if client.get_run(run_id).data.tags.get(BENCHMARK) == scored.fingerprint:
            return run_id
        run = Run(trained.facts["run"], fetch_folder(benchmark), scored, fetch_folder(student), trained)
        with tempfile.TemporaryDirectory(prefix="cliprd-sheet-") as folder:
            _draw(Path(folder), run, teacher)
            scores = summary(run)
            _log_metrics(client, run_id, score_metrics(scores))
            client.log_artifacts(run_id, folder)
        for name, score in scores.items():
            if "standing" in score:
                client.set_tag(run_id, STANDING + name.removeprefix("mean").replace("/", "."), score["standing"])
        _tag_left_out(client, run_id, str(scored.facts.get("left_out", "")))
        client.set_tag(run_id, BENCHMARK, scored.fingerprint)
    except Exception as error:  # a server or network can raise anything: the benchmark is worth more than its log
        name = Path(student).name
        server.warn(f"the scores of {name} are not tracked", error, "`cliprd compare` sends them.")
    return run_id


def log_comparison(params: Params, benchmarks: Location, students: Location, output: Location) -> None:
    """`log_scores` of all that was compared; then the report's files and the methods' means in the parent run.

    Args:
        params: `ablation` and `tracking` are used.
        benchmarks, students: inputs of `compare`.
        output: its finished folder.
    """
    names = [f"{method}-{seed}" for method in params.ablation.methods for seed in params.ablation.seeds]
    teacher = storage.join(benchmarks, TEACHER)
    runs = [log_scores(params, storage.join(students, name), storage.join(benchmarks, name), teacher) for name in names]
    try:
        _log_report(params, output, [run_id for run_id in runs if run_id is not None])
    except Exception as error:
        server.warn("the report is not tracked", error, "The same `cliprd compare` again sends it.")


def _log_report(params: Params, output: Location, runs: Iterable[str]) -> None:
    client = server.connect(params.tracking.uri)
    fingerprint = manifest.read(output, stage="compare").fingerprint
    for run_id in sorted(_compared_in(client, [client.get_run(run_id) for run_id in runs])):
        if client.get_run(run_id).data.tags.get(COMPARISON) == fingerprint:
            continue
        folder = fetch_folder(output)
        content = parse_json((folder / "comparison.json").read_bytes())
        _log_metrics(client, run_id, score_metrics(_means(content)))
        client.set_tag(run_id, HEADLINE, content["protocols"][content["protocol"]]["headline"])
        client.set_tag(run_id, VERDICTS, json.dumps(_verdicts(content), sort_keys=True))
        for file in ("comparison.md", "comparison.json", "index.html"):
            client.log_artifact(run_id, str(folder / file), "report")
        _tag_left_out(client, run_id, in_words(content.get("left_out", {})))
        client.set_tag(run_id, COMPARISON, fingerprint)


def _compared_in(client: Any, trainings: Iterable[Any]) -> set[str]:
    """The runs that a comparison of the trainings is logged in: their parents. For trainings in runs of others
    (`parent`) it is a run of its own for each ablation, in the run of this process where it has one.
    """
    members = {(run.info.experiment_id, run.data.tags.get(parent.MEMBER)) for run in trainings}
    places = {_comparison(client, experiment, key) for experiment, key in members if key}
    others = {run.data.tags.get(election.PARENT) for run in trainings if parent.MEMBER not in run.data.tags}
    return places | (others - {None})


def _comparison(client: Any, experiment: str, key: str) -> str:
    tags = {KIND: "comparison", parent.MEMBER: key}
    above = parent.find(client, parent.run_id(), "the comparison") if parent.run_id() else None
    if above and above.info.experiment_id == experiment:  # MLflow nests within an experiment only
        tags[election.PARENT] = above.info.run_id
    query = " AND ".join(f"tags.`{name}` = {server.quoted(value)}" for name, value in tags.items())
    if runs := election.every(client, experiment, query):
        return str(max(runs, key=lambda run: run.info.start_time).info.run_id)
    run_id = client.create_run(experiment, run_name=f"comparison-{key[:8]}", tags=tags).info.run_id
    client.set_terminated(run_id)
    return str(run_id)


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
    models = {TEACHER: block["teacher"], **block["methods"]}
    means = {f"mean/{model}": entry["mean"] for model, entry in models.items()}
    differences = {method: entry["difference"] for method, entry in block["methods"].items() if "difference" in entry}
    return means | {f"difference/{method}": difference["mean"] for method, difference in differences.items()}


def _verdicts(content: Mapping[str, Any]) -> dict[str, Any]:
    """`{"protocol", "confidence", "covers", "reference", "seeds": n, "methods": {METHOD: word},
    "not_above_guessing": [MODEL]}`."""
    block = content["protocols"][content["protocol"]]
    models = {TEACHER: block["teacher"], **block["methods"]}
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
    """Those that the run does not have like that."""
    from mlflow.entities import Metric

    known, now = client.get_run(run_id).data.metrics, int(time.time() * 1000)
    new = [Metric(key, value, now, 0) for key, value in metrics.items() if known.get(key) != value]
    client.log_batch(run_id, metrics=new)


def summary(run: Run) -> dict[str, Mapping[str, Any]]:
    """Every score with its interval: `mean` and `<task>` of the primary metric by the first protocol of all tasks,
    `mean/<protocol>` by each of these, `<task>/<protocol>/<metric>` of all.

    A task has its rates of `guessing` and `majority` too; a mean has the `floor` that they make, and its `standing`.
    """
    results = run.results
    scores: dict[str, Mapping[str, Any]] = {}
    for protocol in _protocols(results):
        stands = standing.standing([run], protocol, Settings.of(results))
        floor, above = stands["floor"], stands["above_guessing"]["mean"]
        words = verdicts.standing(stands["mean"], floor["mean"], above)
        mean = {**stands["mean"], "floor": floor["mean"], "standing": words}
        if not scores:
            scores = {"mean": mean}
            scores |= {name: {**score, **floor["tasks"][name]} for name, score in stands["tasks"].items()}
        scores[f"mean/{protocol}"] = mean
    for name, task in results["tasks"].items():
        parts: dict[str, Any] = {**task["protocols"], **({"fidelity": task["fidelity"]} if task["fidelity"] else {})}
        for part, entry in parts.items():
            scores |= {f"{name}/{part}/{metric}": score for metric, score in entry["scores"].items()}
    return scores


def _protocols(results: Mapping[str, Any]) -> list[str]:
    """Those that all tasks were scored by, `standard` before `paper`."""
    tasks = results["tasks"].values()
    return [p for p in ("standard", "paper") if tasks and all(p in task["protocols"] for task in tasks)]


def _draw(folder: Path, run: Run, teacher: Location | None) -> None:
    """The run's artifacts: pictures, history and results."""
    (folder / "benchmark").mkdir()
    for name in ("scores.json", "results.json"):
        shutil.copyfile(run.folder / name, folder / "benchmark" / name)
    if run.student is not None:
        shutil.copyfile(run.student / "history.csv", folder / "history.csv")
    protocol = next(iter(_protocols(run.results)), None)
    if teacher is None or protocol is None:
        return
    method, _, seed = run.name.rpartition("-")
    theirs = fetch_folder(teacher)
    grid = Grid(Run(TEACHER, theirs, manifest.read(theirs)), {method: [run]}, (int(seed),))
    content = comparison.build(grid, reference=method, protocol=protocol)
    write_sheet(folder, grid, content, {"compare": {"reference": method, "protocol": protocol, "against": TEACHER}})
