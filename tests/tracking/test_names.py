"""Hostile names in MLflow: everything arrives, nothing collides, and no key, value or artifact hides a character."""

import os
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient

from cliprd import files
from cliprd.names import key
from cliprd.tracking import ablation, catch_up, records, scores
from cliprd.tracking.training import KIND
from tests.hostile import FORBIDDEN, NAMES, check_dead
from tests.report import folders
from tests.tracking.trainings import inputs, record, training, tree

pytestmark = pytest.mark.integration
TASKS = [name for kind, name in NAMES.items() if kind != "not text"]  # which `benchmark` refuses


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = [folders.Task(name, "classification", ["a", "\x1b[1mb", "c"], 24, 0.5) for name in TASKS]
    grid = folders.write_grid(tmp_path, ["clip_kd"], [0], only=tasks)
    student, scored = (grid[kind] / "clip_kd-0" for kind in ("students", "benchmarks"))
    files.write_json(scored / "scores.json", {})
    settings = tree(f"sqlite:///{tmp_path}/mlflow.db", "a\x1bb\n", distill={"method": "clip_kd"})
    with training(settings, inputs(tmp_path), student) as write:
        write(record(10))
    client = MlflowClient(settings.tracking.uri)
    figures = dict.fromkeys(NAMES.values(), 1.0) | {"student_scale": 14.3}
    figures |= {f"{name}_scale": 2.0 for name in NAMES.values()}
    row = {"epoch": 0.0, "lr": 0.1, "loss": 3.0, **figures, "grad_norm": 0.1}
    records.send(client, catch_up(settings, student), [records.StepMetrics(20, 0, records.step_metrics(row))])
    scores.log_scores(settings, student, scored, grid["benchmarks"] / "teacher")
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = 'training'")
    return settings, client, found


def test_every_score_loss_and_picture_arrives_under_a_name_of_its_own(tracked, capsys):
    settings, client, run = tracked
    assert "warning" not in capsys.readouterr().err
    assert run.data.tags["cliprd.benchmark"]
    metrics = run.data.metrics
    for group, names in (("score", TASKS), ("low", TASKS), ("loss", NAMES.values()), ("scale", NAMES.values())):
        keys = {key(f"{group}/{name}") for name in names}
        assert len(keys) == len(names)
        assert keys <= set(metrics)
    told = [*metrics, *run.data.params, *run.data.params.values(), *run.data.tags.values()]
    assert not any(FORBIDDEN.search(text) for text in told)
    files = {unquote(os.path.basename(file.path)) for file in client.list_artifacts(run.info.run_id, "confusion")}
    assert files == {f"{key(name)}.svg" for name in TASKS}
    shown = ablation.text(ablation.tables(settings))
    assert not FORBIDDEN.search(shown.replace("\n", ""))
    assert "e+0" not in shown


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_what_mlflow_shows_as_markdown_is_text(name):
    from cliprd.artifact.manifest import Manifest
    from cliprd.tracking.training import describe

    made = {"stage": "x", "inputs": {}, "files": {}, "code": "c"}
    shards = Manifest(params={"path": name}, facts={"samples": 5}, **made)
    cache = Manifest(params={"cache": {name: name}}, facts={"teacher": name}, **made)
    described = describe(
        tree(""),
        key="k",
        shards=shards,
        cache=cache,
        device=name,
        processes=1,
        effective={"distill": {"weights": {"task": 1.0}}},
    )
    check_dead(described.ablation["note"])
    told = [*described.params, *described.params.values(), *described.tags.values(), described.datasets[0]["name"]]
    assert not any(FORBIDDEN.search(text) for text in told)
