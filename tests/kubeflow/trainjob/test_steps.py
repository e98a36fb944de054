"""The component that has a job do the training: in the pipelines, and at work, with its nodes as processes here."""

import json
import os
import subprocess
import sys
import threading

import pytest
import yaml
from kfp.dsl import Dataset, Metrics, Model

from cliprd import params, storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import write_pointer
from cliprd.errors import ParamsError
from cliprd.kubeflow import step
from cliprd.kubeflow.compile import compile_pipeline
from cliprd.kubeflow.trainjob import watch
from cliprd.kubeflow.trainjob.cluster import Cluster
from cliprd.stages import distill
from components.distill import distill_nodes
from tests import s3_server
from tests.distill import rooms
from tests.distill.test_distributed import assert_near, history
from tests.kubeflow.paths import IMAGE, ROOT
from tests.kubeflow.trainjob import clusters
from tests.ports import free_port


def compiled(*overrides: str, name: str = "distill") -> dict:
    tree = params.load(ROOT / "params.yaml", overrides)
    return next(yaml.safe_load_all(compile_pipeline(name, tree, IMAGE)))


@pytest.mark.parametrize("name", ["distill", "ablation", "retrain"])
def test_pipelines_train_on_many_nodes_by_a_job(name):
    steps = compiled("kubernetes.nodes=3", "kubernetes.store=s3://pairs/work", name=name)["components"]
    assert "comp-distill-nodes" in steps
    assert "comp-distill" not in steps
    assert "comp-distill-nodes" not in compiled(name=name)["components"]


def test_many_nodes_without_a_place_to_meet_are_refused():
    with pytest.raises(ParamsError, match=r"Set kubernetes\.store"):
        compiled("kubernetes.nodes=3")


@pytest.fixture
def store(tmp_path, monkeypatch):
    (tmp_path / "s3" / "pairs").mkdir(parents=True)
    with s3_server.running(tmp_path / "s3") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield "s3://pairs/work"


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.1)
    with clusters.stand_in() as host:
        monkeypatch.setattr(Cluster, "here", lambda: Cluster(clusters.connect(host), "default"))
        yield host


def play(host: str, nodes: int) -> list[int]:
    """As Kubeflow and its nodes: run the pod's command once a node, and say how it ended. Gives the exit codes."""
    runtimes = clusters.server(host).objects
    while not runtimes.get("trainjobs"):
        threading.Event().wait(0.1)
    (job,), (runtime,) = runtimes["trainjobs"].values(), runtimes["trainingruntimes"].values()
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    place = {"PET_NNODES": str(nodes), "PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "cliprd.cli", *container["command"][1:]]
    started = [
        subprocess.Popen(command, env={**os.environ, **place, "PET_NODE_RANK": str(rank), "OMP_NUM_THREADS": "1"})
        for rank in range(nodes)
    ]
    codes = [process.wait(300) for process in started]
    engine = clusters.Engine(host, job)
    engine.condition("Failed" if any(codes) else "Complete", "Test")
    return codes


@pytest.mark.integration
def test_a_student_is_trained_by_a_job_and_not_again(rooms_folder, tmp_path, store, cluster):
    for name in ("shards", "cache"):
        for path in sorted((rooms_folder / name).rglob("*")):
            if path.is_file():
                storage.upload(path, f"{store}/{name}/{path.relative_to(rooms_folder / name)}")
    tree = json.loads(rooms.make_params(rooms_folder).model_dump_json())
    sections = {name: tree[name] for name in ("distill", "student", "augmentation", "tracking")}
    sections["kubernetes"] = {"nodes": 2, "store": store}
    inputs = {name: f"{store}/{name}" for name in ("shards", "cache")}
    codes: list[int] = []
    engine = threading.Thread(target=lambda: codes.extend(play(cluster, 2)))
    engine.start()
    for name, url in inputs.items():
        write_pointer(tmp_path / name, url)
    training = Metrics(uri=str(tmp_path / "training"))
    distill_nodes(
        settings=sections["distill"], **{name: sections[name] for name in sections if name != "distill"}, image=IMAGE,
        method=tree["distill"]["method"], seed=tree["distill"]["seed"], store=store,
        **{name: Dataset(uri=str(tmp_path / name)) for name in inputs},
        model=Model(uri=str(tmp_path / "student")), training=training,
    )  # fmt: skip
    engine.join()
    assert codes == [0, 0]
    made = manifest.verify(tmp_path / "student", stage="distill")
    assert training.metadata == made.facts["final"]
    folders = {name: rooms_folder / name for name in inputs}
    distill.run(rooms.make_params(rooms_folder, processes=1), folders, tmp_path / "alone")
    assert_near(history(tmp_path / "student"), history(tmp_path / "alone"))

    asked = clusters.server(cluster).objects["trainjobs"]
    asked.clear()
    again = step.distill_nodes(sections, inputs, str(tmp_path / "again"), store=store, image=IMAGE)
    assert (again.fingerprint, asked) == (made.fingerprint, {})  # found done: no job
    one = step.run(  # and by one pod as well: it is the same work
        "distill", {name: sections[name] for name in sections if name != "kubernetes"}, inputs,
        str(tmp_path / "one"), store=store,
    )  # fmt: skip
    assert one.fingerprint == made.fingerprint


@pytest.fixture(scope="module")
def rooms_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    rooms.build(folder)
    return folder
