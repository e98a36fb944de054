"""Runs on a real MLflow server (PostgreSQL, S3): one run a training, all of it once, whatever the server does."""

import dataclasses
import json
import threading
import time

import pytest
from mlflow import MlflowClient

from cliprd import params, tracking
from cliprd.distill.record import Record
from cliprd.tracking import runs, sender, server
from cliprd.tracking.spool import Spool, entries
from cliprd.tracking.training import ABLATION, KIND, Training
from tests.mlflow_server import LIMIT, mlflow_server  # noqa: F401 — a fixture

pytestmark = pytest.mark.integration


def record(step: int, loss: float = 1.0) -> Record:
    return Record(
        step=step,
        epoch=0,
        lr=1e-3,
        terms={"task": loss, "fd": 0.5},
        scales={"student_scale": 14.3, "cross_scale": 2.66},
        grad_norm=0.1,
        images_per_second=400.0,
        data_wait=0.01,
    )


TRAINING = Training(
    name="clip_kd-0",
    key="k",
    params={"method": "clip_kd", "weight/fd": "2000"},
    tags={"cliprd.shards": "abc", KIND: "training"},
    datasets=({"name": "pairs", "digest": "abc", "source_type": "local", "source": "{}", "profile": "{}"},),
    ablation={
        "key": "shared",
        "name": "ablation-shared",
        "note": "a note",
        "params": {"distill.lr": "0.1"},
        "tags": {},
    },
)


class Place:
    """An experiment on the server, and a training in a folder."""

    def __init__(self, uri, experiment, folder):
        self.params = params.validate({"tracking": {"uri": uri, "experiment": experiment}}, where="test")
        self.folder = folder
        self.client = uri and MlflowClient(uri)

    def train(self, steps, training=TRAINING, folder=None, hook=lambda step: None):
        with tracking.training_run(self.params, folder or self.folder, lambda: training) as report:
            for step in steps:
                report(record(step, 1 / step))
                hook(step)

    def found(self, kind="training"):
        experiment = self.client.get_experiment_by_name(self.params.tracking.experiment)
        return experiment and self.client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = '{kind}'")

    def steps(self, metric="loss/task"):
        runs = self.found() or []
        assert len(runs) <= 1
        return [(m.step, m.value) for run in runs for m in self.client.get_metric_history(run.info.run_id, metric)]

    @property
    def left(self):
        return [entry["step"] for entry in entries(self.folder / runs.SPOOL_FILE) if "step" in entry]


def told(steps):
    return [(step, 1 / step) for step in steps]


@pytest.fixture
def place(mlflow_server, request, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sender, "LINGER", 0.0)
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(sender, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(runs, "LAST_WAIT", LIMIT)
    return Place(mlflow_server.uri, request.node.name, tmp_path / "student")


def eventually(what):
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_training_is_one_run_under_its_ablations(place):
    place.train(range(10, 60, 10))
    (run,), (parent,) = place.found(), place.found("ablation")
    assert (run.info.run_name, run.info.status) == ("clip_kd-0", "FINISHED")
    assert run.info.start_time == TRAINING.start
    assert run.data.params == dict(TRAINING.params)
    assert run.data.tags["cliprd.shards"] == "abc"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.run_name, parent.info.status) == ("ablation-shared", "FINISHED")
    assert parent.data.params == {"distill.lr": "0.1"}
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("pairs", "abc")
    assert place.steps() == told(range(10, 60, 10))
    assert run.data.metrics["loss/total"] == pytest.approx(1 / 50 + 0.5)
    assert {
        "scale/cross",
        "scale/student",
        "grad_norm",
        "images_per_second",
        "data_wait",
        "lr",
        "epoch",
        "loss/fd",
    } <= set(run.data.metrics)
    assert not (place.folder / runs.SPOOL_FILE).exists()
    assert json.loads((place.folder / runs.RUN_FILE).read_text())["run_id"] == run.info.run_id
    assert tracking.run_of(place.params, place.folder) == run.info.run_id


def test_system_metrics_stand_over_the_steps(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    trained = []

    def until_sampled():
        end = time.monotonic() + LIMIT
        while not place.steps("system/cpu_utilization_percentage"):
            assert time.monotonic() < end
            trained.append(10 * len(trained) + 10)
            yield trained[-1]

    place.train(until_sampled(), hook=lambda step: time.sleep(0.05))
    eventually(lambda: place.found()[0].info.status == "FINISHED")
    steps = [step for step, _ in place.steps("system/cpu_utilization_percentage")]
    assert steps
    assert set(steps) <= set(trained)
    assert "system/system_memory_usage_megabytes" in place.found()[0].data.metrics


def test_a_resumed_training_goes_on_in_its_run_and_tells_no_step_twice(place):
    def stop(step):
        if step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.train((10, 20, 30), hook=stop)
    assert place.found()[0].info.status == "KILLED"
    place.train((20, 30, 40))  # the checkpoint was at 10
    assert place.found()[0].info.status == "FINISHED"
    assert place.steps() == told((10, 20, 30, 40))


def test_a_failed_training_is_marked(place):
    def fail(step):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        place.train([10], hook=fail)
    assert place.found()[0].info.status == "FAILED"
    assert place.steps() == told([10])


def test_a_server_that_is_killed_and_started_again_has_everything_once_and_in_order(mlflow_server, place):  # noqa: F811
    def outage(step):
        if step == 20:
            eventually(lambda: place.steps() == told((10, 20)))
            mlflow_server.stop()
        if step == 60:
            assert place.left  # kept on disk
            mlflow_server.start()

    try:
        place.train(range(10, 100, 10), hook=outage)
    finally:
        mlflow_server.restart()
    assert place.steps() == told(range(10, 100, 10))
    times = [m.timestamp for m in place.client.get_metric_history(place.found()[0].info.run_id, "loss/task")]
    assert times == sorted(times)
    assert place.found()[0].info.status == "FINISHED"


def test_a_server_that_was_never_up_gets_it_all_later(mlflow_server, place, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(runs, "LAST_WAIT", 0.5)
    monkeypatch.setattr(runs, "LAST_WAIT_STOPPED", 0.2)
    killed = Place(mlflow_server.uri, f"{place.params.tracking.experiment}-killed", tmp_path / "killed")

    def stop(step):
        if step == 20:
            raise KeyboardInterrupt

    said = ""

    def warned(step):
        def heard():
            nonlocal said
            said += capsys.readouterr().err
            return "is not tracked for now" in said

        eventually(heard)  # however long a busy machine takes to find that nobody answers

    mlflow_server.stop()
    try:
        place.train((10, 20, 30), hook=warned)
        said += capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            killed.train((10, 20), hook=stop)
        assert killed.left == [10, 20]
    finally:
        mlflow_server.start()
    assert said.count("is not tracked for now") == 1
    assert "4 records of training clip_kd-0 have not reached MLflow" in said  # three steps and the end
    assert place.found() is None
    before = {p: p.read_bytes() for p in (place.folder / "volatile").iterdir()}
    first = tracking.flush(place.params, place.folder)
    assert tracking.flush(place.params, place.folder) == first == tracking.run_of(place.params, place.folder)
    assert {p: p.read_bytes() for p in (place.folder / "volatile").iterdir()} == before  # the folder may be DVC's
    assert place.steps() == told((10, 20, 30))
    (run,) = place.found()
    assert run.info.status == "FINISHED"
    assert run.info.start_time == TRAINING.start
    assert abs(run.info.end_time - list(entries(place.folder / runs.SPOOL_FILE))[-1]["time"]) <= 1
    monkeypatch.setattr(runs, "LAST_WAIT", LIMIT)
    killed.train((20, 30))  # goes on in its run, that is only now made
    assert killed.steps() == told((10, 20, 30))


def test_what_was_taken_although_the_answer_was_lost_is_not_sent_again(place, monkeypatch):
    send, lost = MlflowClient.log_batch, []

    def lossy(self, run_id, metrics=(), **more):
        send(self, run_id, metrics=metrics, **more)
        if metrics and len(lost) < 2:
            lost.append([metric.step for metric in metrics])
            raise ConnectionError("the answer is lost")

    monkeypatch.setattr(MlflowClient, "log_batch", lossy)
    requests = []
    monkeypatch.setattr(
        sender,
        "send",
        lambda c, r, found, known, real=sender.send: (requests.append(set(known)), real(c, r, found, known)),
    )
    place.train((10, 20, 30), hook=lambda step: eventually(lambda: len(lost) == min(step // 10, 2)))
    assert len(lost) == 2
    assert set(lost[0]) <= requests[1]  # asked before sending again
    assert place.steps() == told((10, 20, 30))


def test_a_run_made_although_the_answer_was_lost_is_not_made_again(place, monkeypatch):
    make, lost = MlflowClient.create_run, []

    def lossy(self, *arguments, **more):
        made = make(self, *arguments, **more)
        if len(lost) < 2:
            lost.append(made)
            raise ConnectionError("the answer is lost")
        return made

    monkeypatch.setattr(MlflowClient, "create_run", lossy)
    place.train((10, 20))
    assert len(lost) == 2  # the parent's, the training's
    assert len(place.found()) == len(place.found("ablation")) == 1


def test_two_trainings_at_once_have_one_parent(place, tmp_path, monkeypatch):
    """Both look before either makes one; the younger's parent is given up, and the clocks of the two do not agree."""
    make, together = MlflowClient.create_run, threading.Barrier(2, timeout=LIMIT)

    def at_once(self, experiment, **more):
        if more["tags"].get(ABLATION):
            together.wait()
        return make(self, experiment, **more)

    monkeypatch.setattr(MlflowClient, "create_run", at_once)
    threads = [
        threading.Thread(
            target=place.train,
            args=((10, 20), dataclasses.replace(TRAINING, name=f"m-{n}", key=f"k{n}"), tmp_path / f"s{n}"),
        )
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    (parent,) = place.found("ablation")
    assert {run.info.run_name for run in place.found()} == {"m-0", "m-1"}
    assert {run.data.tags["mlflow.parentRunId"] for run in place.found()} == {parent.info.run_id}


def test_the_same_work_anew_is_a_run_of_its_own(place, tmp_path):
    place.train([10])
    place.train([10], folder=tmp_path / "anew")
    assert len(place.found()) == 2
    assert len(place.found("ablation")) == 1


def test_work_that_was_lost_with_its_machine_goes_on_in_its_run(place, tmp_path):
    """Nothing of the first machine's folder got anywhere; place and work are the same."""
    (run_id,) = begin(place, [10, 20])
    place.train((10, 20, 30), folder=tmp_path / "other machine")
    (run,) = place.found()
    assert run.info.run_id == run_id
    assert place.steps() == told((10, 20, 30))


def begin(place, steps):
    """A training that was never ended: its process is gone."""
    client = server.connect(place.params.tracking.uri)
    from cliprd.tracking.training import ensure_run

    run_id = ensure_run(client, place.params.tracking.experiment, TRAINING, None, resumed=False)
    told = [{"step": s, "time": 1000 + s, "metrics": runs.step_metrics(record(s, 1 / s))} for s in steps]
    sender.send(client, run_id, told, set())
    return [run_id]


def test_what_cannot_be_written_ends_no_training(place, capsys):
    place.folder.parent.mkdir(exist_ok=True)
    place.folder.write_text("not a folder")
    place.train([10, 20])
    assert capsys.readouterr().err.count("cliprd: warning") == 1


@pytest.mark.parametrize(
    ("text", "run_id"), [('{"run_id": "1", "experiment": "x"}', "1"), ('{"run_id": "1", "exp', None), ("[]", None)]
)
def test_a_note_of_an_older_cliprd_or_one_that_was_cut_breaks_nothing(text, run_id, tmp_path):
    (tmp_path / runs.RUN_FILE).parent.mkdir()
    (tmp_path / runs.RUN_FILE).write_text(text)
    tree = params.validate({"tracking": {"uri": "http://127.0.0.1:1"}}, where="test")
    assert runs.run_of(tree, tmp_path) == run_id
    assert runs.flush(tree, tmp_path) is None


def test_an_empty_uri_turns_tracking_off(tmp_path):
    Place("", "none", tmp_path / "student").train([1])
    assert not (tmp_path / "student").exists()


def test_a_spool_keeps_order_drops_repeats_and_forgets_what_is_acknowledged(tmp_path):
    path = tmp_path / "volatile" / "spool.jsonl"
    spool = Spool(path)
    for step in (1, 2, 2, 3):
        spool.append({"step": step})
    found, end = spool.read(2)
    assert found == [{"step": 1}, {"step": 2}]
    spool.append({"status": "FINISHED"})
    spool.acknowledge(end)
    assert spool.left == 2
    spool.close(remove=False)
    with path.open("ab") as file:
        file.write(b'{"step": 9')  # a kill
    again = Spool(path)
    assert again.last_step == 3
    again.append({"step": 4})
    found, end = again.read(100)
    assert found == [{"step": 1}, {"step": 2}, {"step": 3}, {"status": "FINISHED"}, {"step": 4}]
    again.acknowledge(end)
    assert path.stat().st_size == 0
    again.append({"step": 5})
    assert again.read(100)[0] == [{"step": 5}]
    again.close(remove=True)
    assert not path.exists()


def test_a_long_spool_is_cut_while_more_follows(tmp_path, monkeypatch):
    monkeypatch.setattr("cliprd.tracking.spool.COMPACT", 50)
    spool = Spool(tmp_path / "spool.jsonl")
    for step in range(1, 21):
        spool.append({"step": step})
    _, end = spool.read(10)
    spool.acknowledge(end)
    assert [entry["step"] for entry in entries(spool.path)] == list(range(11, 21))
    spool.append({"step": 21})
    assert [entry["step"] for entry in spool.read(100)[0]] == list(range(11, 22))
