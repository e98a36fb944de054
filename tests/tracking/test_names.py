"""Hostile names in MLflow: everything arrives, nothing collides, and no key, value or artifact hides a character."""

import os
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient

from cliprd import files, params, tracking
from cliprd.artifact import manifest
from cliprd.distill.record import Record
from cliprd.names import key
from cliprd.report.runs import Run
from cliprd.tracking import ablation, sender
from cliprd.tracking.summary import track
from cliprd.tracking.training import KIND, Training
from tests.hostile import FORBIDDEN, NAMES, check_dead
from tests.report import folders

pytestmark = pytest.mark.integration
TASKS = [name for kind, name in NAMES.items() if kind != "not text"]  # which `benchmark` refuses


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sender, "LINGER", 0.0)
    tasks = [folders.Task(name, "classification", ["a", "\x1b[1mb", "c"], 24, 0.5) for name in TASKS]
    inputs = folders.write_grid(tmp_path, ["clip_kd"], [0], only=tasks)
    student, scored = inputs["students"] / "clip_kd-0", inputs["benchmarks"]
    files.write_json(scored / "clip_kd-0" / "scores.json", {})
    place = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "a\x1bb\n"}
    tree = params.validate({"tracking": place}, where="test")
    terms = {name.replace("/", ""): 1.0 for name in NAMES.values()}
    training = Training(
        name="clip_kd-0",
        key="k",
        tags={KIND: "training"},
        ablation={"key": "shared", "name": "ablation", "note": "a note", "params": {}, "tags": {}},
    )
    with tracking.training_run(tree, student, lambda: training) as report:
        scales = {f"{name}_scale": 2.0 for name in terms}
        pace = {"images_per_second": 17_570.0, "data_wait": 0.01}
        report(Record(step=10, epoch=0, lr=1e-3, terms=terms, scales=scales, grad_norm=0.1, **pace))
    run = Run("clip_kd-0", scored / "clip_kd-0", manifest.read(scored / "clip_kd-0"), student, manifest.read(student))
    teacher = Run("teacher", scored / "teacher", manifest.read(scored / "teacher"))
    track(tree, student, run.manifest, lambda: run, teacher)
    client = MlflowClient(tree.tracking.uri)
    experiment = client.get_experiment_by_name(tree.tracking.experiment)
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = 'training'")
    return tree, client, found


def test_every_score_loss_and_picture_arrives_under_a_name_of_its_own(tracked, capsys):
    tree, client, run = tracked
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
    shown = ablation.text(ablation.tables(tree))
    assert not FORBIDDEN.search(shown.replace("\n", ""))
    assert "e+0" not in shown


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_what_mlflow_shows_as_markdown_is_text(name):
    from cliprd.artifact.manifest import Manifest
    from cliprd.tracking.training import describe

    made = {"stage": "x", "inputs": {}, "files": {}, "code": "c"}
    shards = Manifest(params={"path": name}, facts={"samples": 5}, **made)
    cache = Manifest(params={"cache": {name: name}}, facts={"teacher": name}, **made)
    tree = params.validate({"tracking": {"uri": ""}}, where="test")
    training = describe(
        tree,
        key="k",
        shards=shards,
        cache=cache,
        device=name,
        processes=1,
        effective={"distill": {"weights": {"task": 1.0}}},
    )
    check_dead(training.ablation["note"])
    told = [*training.params, *training.params.values(), *training.tags.values(), training.datasets[0]["name"]]
    assert not any(FORBIDDEN.search(text) for text in told)
