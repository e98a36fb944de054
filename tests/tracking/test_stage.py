"""Stage `distill` with its output in S3: lost with its machine, it goes on elsewhere in the same MLflow run."""

import boto3
import pytest
import torch
from mlflow import MlflowClient

from cliprd import storage, tracking
from cliprd.stages import distill
from cliprd.storage import s3
from cliprd.tracking import follow, runs
from cliprd.tracking.training import KIND
from tests.distill.rooms import build, make_params
from tests.mlflow_server import LIMIT, mlflow_server  # noqa: F401 — a fixture

pytestmark = pytest.mark.integration


class Stop(Exception):
    pass


@pytest.fixture
def bucket(mlflow_server, monkeypatch):  # noqa: F811
    for name, value in mlflow_server.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    s3.client.cache_clear()
    client = boto3.client("s3")
    if "students" not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket="students")
    yield "s3://students"
    s3.client.cache_clear()


def test_a_training_goes_on_in_its_run_on_another_machine(mlflow_server, bucket, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(follow, "LOOK", 0.01)
    monkeypatch.setattr(follow, "INTERVAL", 0.05)
    monkeypatch.setattr(follow, "LAST_WAIT", LIMIT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    build(tmp_path)
    params = make_params(tmp_path, method="vrd-exp")
    section = params.tracking.model_copy(update={"uri": mlflow_server.uri, "experiment": "elsewhere"})
    params = params.model_copy(update={"tracking": section})
    inputs = {"shards": tmp_path / "shards", "cache": tmp_path / "cache"}
    output = f"{bucket}/vrd-exp-0"

    def run(report):
        with tracking.following(params, "distill", inputs, output):
            distill.run(params, inputs, output, report=report)

    def stop(record):
        if record.step == 8:  # the checkpoint was at 5
            raise Stop

    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "one"))
    with pytest.raises(Stop):
        run(stop)
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "other"))
    steps = []
    run(lambda record: steps.append(record.step))
    torch.set_num_threads(threads)
    assert steps == [6, 8, 10, 12, 14, 15]
    client = MlflowClient(mlflow_server.uri)
    experiment = client.get_experiment_by_name("elsewhere").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`{KIND}` = 'training'")
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    for metric in ("loss/total", "loss/vrd", "scale/image", "grad_norm"):
        assert [m.step for m in client.get_metric_history(run.info.run_id, metric)] == [2, 4, 6, 8, 10, 12, 14, 15]
    assert {"cliprd.shards", "cliprd.cache", "cliprd.code", "cliprd.device"} <= set(run.data.tags)
    assert run.data.params["weight/vrd"] == "1"
    assert run.data.params["weight/xrd"] == "0"
    assert run.data.params["scale_mode"] == "exp"
    assert run.data.params["data.kind"] == "folder"
    (dataset,) = run.inputs.dataset_inputs
    assert run.data.tags["cliprd.shards"].startswith(dataset.dataset.digest)
    assert runs.RUN_FILE in storage.list_folder(output)
    assert tracking.run_of(params, output) == run_id
    assert tracking.catch_up(params, output) == run_id
    assert [m.step for m in client.get_metric_history(run_id, "loss/total")] == [2, 4, 6, 8, 10, 12, 14, 15]
