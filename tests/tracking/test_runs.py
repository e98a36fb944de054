"""Runs on a real MLflow store (SQLite)."""

import json

import pytest
from mlflow import MlflowClient

from cliprd import params, tracking
from cliprd.distill.record import Record


def record(step: int, loss: float = 1.0) -> Record:
    return Record(
        step=step,
        epoch=0,
        lr=1e-3,
        terms={"task": loss, "fd": 0.5},
        scales={"student": 14.3, "cross": 2.66},
        grad_norm=0.1,
        images_per_second=400.0,
        data_wait=0.01,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def tree(store, request, monkeypatch):
    monkeypatch.chdir(store)  # a SQLite store keeps artifacts under ./mlruns
    tracking_tree = {"uri": f"sqlite:///{store}/mlflow.db", "experiment": request.node.name}
    return params.validate({"tracking": tracking_tree}, where="test")


def runs(tree):
    client = MlflowClient(tree.tracking.uri)
    experiment = client.get_experiment_by_name(tree.tracking.experiment)
    return client, client.search_runs([experiment.experiment_id])


def train(tree, folder, steps):
    with tracking.training_run(tree, name="clip_kd-0", folder=folder, tags={"shards": "abc"}) as report:
        for step in steps:
            report(record(step, loss=1 / step))


def test_a_training_is_one_run_with_params_terms_and_tags(tree, tmp_path):
    train(tree, tmp_path, range(10, 60, 10))
    client, found = runs(tree)
    assert [run.info.run_name for run in found] == ["clip_kd-0"]
    run = found[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["distill.lr"] == "0.001"
    assert run.data.params["student.arch"] == "ViT-T-16"
    assert run.data.tags["cliprd.shards"] == "abc"
    history = client.get_metric_history(run.info.run_id, "loss/task")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(10, 60, 10)]
    assert run.data.metrics["loss/total"] == pytest.approx(1 / 50 + 0.5)
    assert {"scale/cross", "grad_norm", "images_per_second", "data_wait", "lr", "loss/fd"} <= set(run.data.metrics)


def test_a_resumed_training_goes_on_in_its_run_without_double_steps(tree, tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        tracking.training_run(tree, name="x", folder=tmp_path, tags={}) as report,
    ):
        for step in (10, 20, 30):
            report(record(step))
        raise KeyboardInterrupt
    client, found = runs(tree)
    assert found[0].info.status == "KILLED"
    train(tree, tmp_path, (20, 30, 40))  # the checkpoint was at 10
    client, found = runs(tree)
    assert len(found) == 1
    assert found[0].info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(found[0].info.run_id, "loss/task")] == [10, 20, 30, 40]


def test_a_failed_training_is_marked(tree, tmp_path):
    with pytest.raises(ZeroDivisionError), tracking.training_run(tree, name="x", folder=tmp_path, tags={}):
        1 / 0  # noqa: B018
    assert runs(tree)[1][0].info.status == "FAILED"


def test_scores_and_report_arrive_once(tree, tmp_path):
    train(tree, tmp_path / "student", [10])
    results = tmp_path / "benchmark"
    results.mkdir()
    (results / "scores.json").write_text("{}")
    (results / "results.json").write_text("{}")
    tracking.log_scores(tree, tmp_path / "student", {"tuxpaint": {"standard": {"acc1": 0.5, "n": None}}}, results)
    client, found = runs(tree)
    assert found[0].data.metrics["score/tuxpaint/standard/acc1"] == 0.5
    assert {a.path for a in client.list_artifacts(found[0].info.run_id, "benchmark")} == {
        "benchmark/scores.json",
        "benchmark/results.json",
    }
    report = tmp_path / "report"
    report.mkdir()
    for name in ("comparison.md", "comparison.json", "index.html"):
        (report / name).write_text(json.dumps({"name": name}))
    tracking.log_report(tree, report)
    tracking.log_report(tree, report)
    assert len(runs(tree)[1]) == 2


def test_without_a_usable_store_training_goes_on_with_one_warning(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    tree = params.validate({"tracking": {"uri": f"sqlite:///{tmp_path}/file/x.db"}}, where="test")
    train(tree, tmp_path / "student", range(1, 5))
    assert capsys.readouterr().err.count("cliprd: warning") == 1


def test_empty_uri_turns_tracking_off(tmp_path):
    tree = params.validate({"tracking": {"uri": ""}}, where="test")
    train(tree, tmp_path / "student", [1])
    assert not (tmp_path / "student").exists()
