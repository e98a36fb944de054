"""One MLflow run a training: its parameters, every logged term, its scores, and the report that came of it.

Tracking never decides over training: where the tracking server cannot be used, one warning is printed and the work goes
on. A resumed training goes on in its own run and logs no step twice; the run's id lies in `volatile/mlflow.json` beside
the student, where `benchmark` and `compare` find it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cliprd import manifest
from cliprd.distill.record import Record
from cliprd.params import Params

RUN_FILE = f"{manifest.VOLATILE_DIR}/mlflow.json"
Report = Callable[[Record], None]


def _quiet() -> None:
    """MLflow's first contact with a database prints every migration; people want to see the training."""
    for name in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _client(params: Params) -> tuple[Any, str]:
    """MLflow client and experiment id."""
    _quiet()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=params.tracking.uri)
    found = client.get_experiment_by_name(params.tracking.experiment)
    return client, found.experiment_id if found else client.create_experiment(params.tracking.experiment)


def _warn(what: str, error: Exception) -> None:
    line = " ".join(str(error).split())[:200]
    print(f"cliprd: warning: {what} not tracked: {type(error).__name__}: {line}", file=sys.stderr)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, str(value)[:6000]  # MLflow's limit


def _metrics(values: Mapping[str, float | None], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items() if value is not None]


def step_metrics(record: Record) -> dict[str, float | None]:
    """A record as MLflow metrics: `loss/<term>`, `loss/total`, `scale/<name>`, and the run's pace."""
    return {
        **{f"loss/{term}": value for term, value in record.terms.items()},
        "loss/total": sum(record.terms.values()),
        **{f"scale/{name.removesuffix('_scale')}": value for name, value in record.scales.items()},
        "grad_norm": record.grad_norm,
        "lr": record.lr,
        "epoch": float(record.epoch),
        "images_per_second": record.images_per_second,
        "data_wait": record.data_wait,
    }


@contextlib.contextmanager
def training_run(params: Params, *, name: str, folder: Path, tags: Mapping[str, str]) -> Iterator[Report]:
    """Open (or go on in) the run of the training in `folder`; yields what to call with each record.

    Args:
        params: the whole tree; `tracking.uri` empty yields a function that does nothing.
        name: run name, `<method>-<seed>`.
        folder: the student's folder, where the run's id is kept.
        tags: fingerprints and whatever else identifies the inputs.
    """
    if not params.tracking.uri:
        yield lambda record: None
        return
    try:
        client, run_id, logged = _open(params, name, folder, tags)
    except Exception as error:  # whatever a store or network can raise: training is worth more than its log
        _warn(f"training {name} is", error)
        yield lambda record: None
        return

    warned = False

    def report(record: Record) -> None:
        nonlocal warned
        if record.step <= logged or warned:
            return
        try:
            client.log_batch(run_id, metrics=_metrics(step_metrics(record), record.step))
        except Exception as error:
            warned = True
            _warn(f"from step {record.step} on, training {name} is", error)

    status = "FAILED"
    try:
        yield report
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with contextlib.suppress(Exception):
            client.set_terminated(run_id, status)


def _open(params: Params, name: str, folder: Path, tags: Mapping[str, str]) -> tuple[Any, str, int]:
    from mlflow.entities import Param, RunTag

    client, experiment = _client(params)
    file = folder / RUN_FILE
    if file.is_file():
        run_id = json.loads(file.read_text(encoding="utf-8"))["run_id"]
        client.update_run(run_id, status="RUNNING")
        history = client.get_metric_history(run_id, "loss/total")
        return client, run_id, max((metric.step for metric in history), default=-1)
    run = client.create_run(experiment, run_name=name)
    sections = params.model_dump(
        mode="json", include={"data", "augmentation", "teacher", "cache", "student", "distill"}
    )
    flat = [Param(key, value) for key, value in _flat(sections)]
    for start in range(0, len(flat), 100):  # MLflow's limit for one batch
        client.log_batch(run.info.run_id, params=flat[start : start + 100])
    client.log_batch(run.info.run_id, tags=[RunTag(f"cliprd.{key}", value) for key, value in tags.items()])
    manifest.write_json(file, {"run_id": run.info.run_id, "experiment": params.tracking.experiment})
    return client, run.info.run_id, -1


def log_scores(params: Params, student: Path, scores: Mapping[str, Any], files: Path) -> None:
    """Add a student's scores and result files to its run; equal scores are logged once.

    Args:
        params: `tracking` is used.
        student: the student's folder, which knows its run.
        scores: nested numbers; they become `score/<task>/<protocol>/<metric>`.
        files: the benchmark's folder.
    """
    file = student / RUN_FILE
    if not params.tracking.uri or not file.is_file():
        return
    try:
        client, _ = _client(params)
        run_id = json.loads(file.read_text(encoding="utf-8"))["run_id"]
        numbers = {f"score/{key.replace('.', '/')}": float(value) for key, value in _flat(scores)}
        known = client.get_run(run_id).data.metrics
        metrics = _metrics({key: value for key, value in numbers.items() if known.get(key) != value}, 0)
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        for result in ("scores.json", "results.json"):
            client.log_artifact(run_id, str(files / result), "benchmark")
    except Exception as error:
        _warn(f"the scores of {student.name} are", error)


def log_report(params: Params, folder: Path) -> None:
    """Log a comparison's files as a run of their own, named by the comparison's fingerprint; once for equal content."""
    if not params.tracking.uri:
        return
    try:
        client, experiment = _client(params)
        fingerprint = manifest.sha256_file(folder / "comparison.json")
        if client.search_runs([experiment], f"tags.`cliprd.comparison` = '{fingerprint}'", max_results=1):
            return
        run = client.create_run(
            experiment, run_name=f"comparison-{fingerprint[:8]}", tags={"cliprd.comparison": fingerprint}
        )
        for file in ("comparison.md", "comparison.json", "index.html"):
            client.log_artifact(run.info.run_id, str(folder / file), "report")
        client.set_terminated(run.info.run_id)
    except Exception as error:
        _warn("the report is", error)
