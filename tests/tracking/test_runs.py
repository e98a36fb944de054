"""Runs on a real MLflow server (PostgreSQL, S3): one run a training, all of it once, whatever the server does."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from mlflow import MlflowClient

from cliprd import tracking
from cliprd.tracking import follow, records, runs
from cliprd.tracking.training import ABLATION, KIND
from tests.mlflow_server import LIMIT, mlflow_server  # noqa: F401 — a fixture
from tests.tracking.trainings import inputs, record, training, tree

pytestmark = pytest.mark.integration


class Place:
    """An experiment on the server, and a training in a folder."""

    def __init__(self, uri, experiment, folder, **distill):
        self.params = tree(uri, experiment, distill={"method": "clip_kd", **distill})
        self.folder = folder
        self.client = uri and MlflowClient(uri)

    def train(self, steps, folder=None, hook=lambda step: None):
        folder = folder or self.folder
        with training(self.params, inputs(self.folder.parent), folder) as write:
            for step in steps:
                write(record(step, 1 / step))
                hook(step)

    def found(self, kind="training"):
        experiment = self.client.get_experiment_by_name(self.params.tracking.experiment)
        return experiment and self.client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = '{kind}'")

    def steps(self, metric="loss/task"):
        runs = self.found() or []
        assert len(runs) <= 1
        return [(m.step, m.value) for run in runs for m in self.client.get_metric_history(run.info.run_id, metric)]

    def note(self):
        return json.loads((self.folder / runs.RUN_FILE).read_text())


def told(steps):
    return [(step, float(format(1 / step, ".9g"))) for step in steps]


@pytest.fixture
def place(mlflow_server, request, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(follow, "LOOK", 0.02)
    monkeypatch.setattr(follow, "INTERVAL", 0.02)
    monkeypatch.setattr(follow, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(follow, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(follow, "LAST_WAIT", LIMIT)
    monkeypatch.setattr(follow, "LAST_WAIT_STOPPED", LIMIT)
    return Place(mlflow_server.uri, request.node.name, tmp_path / "student")


def eventually(what):
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_training_is_one_run_under_its_ablations(place):
    place.train(range(10, 60, 10))
    (run,), (parent,) = place.found(), place.found("ablation")
    note = place.note()
    assert (run.info.run_name, run.info.status) == ("clip_kd-0", "FINISHED")
    assert run.info.start_time == note["training"]["start"]
    assert run.data.params == note["training"]["params"]
    assert run.data.params["weight/fd"] == "2000"
    assert run.data.tags["cliprd.shards"].startswith(run.inputs.dataset_inputs[0].dataset.digest)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.run_name, parent.info.status) == (note["training"]["ablation"]["name"], "FINISHED")
    assert parent.data.params == note["training"]["ablation"]["params"]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "pairs"
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
    assert note["run_id"] == run.info.run_id
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
    assert len(place.found()) == 1
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
    monkeypatch.setattr(follow, "LAST_WAIT", 0.5)
    monkeypatch.setattr(follow, "LAST_WAIT_STOPPED", 0.2)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    killed = Place(mlflow_server.uri, f"{place.params.tracking.experiment}-killed", tmp_path / "killed")

    def stop(step):
        if step == 20:
            raise KeyboardInterrupt

    said = ""

    def warned(step):
        def heard():
            nonlocal said
            said += capsys.readouterr().err
            return "is not tracked for now" in said and (place.folder / records.SYSTEM).exists()

        eventually(heard)  # however long a busy machine takes to find that nobody answers

    mlflow_server.stop()
    try:
        place.train((10, 20, 30), hook=warned)
        said += capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            killed.train((10, 20), hook=stop)
        assert killed.note()["run_id"] is None
    finally:
        mlflow_server.start()
    assert said.count("is not tracked for now") == 1
    assert f"records of the training in {place.folder} have not reached MLflow" in said
    assert place.found() is None
    before = {p: p.read_bytes() for p in place.folder.rglob("*") if p.is_file()}
    first = tracking.catch_up(place.params, place.folder)
    assert tracking.catch_up(place.params, place.folder) == first == tracking.run_of(place.params, place.folder)
    assert {p: p.read_bytes() for p in place.folder.rglob("*") if p.is_file()} == before  # the folder may be DVC's
    assert place.steps() == told((10, 20, 30))
    assert place.steps("system/cpu_utilization_percentage")
    (run,) = place.found()
    assert run.info.status == "FINISHED"
    assert run.info.start_time == place.note()["training"]["start"]
    times = [m.timestamp for m in place.client.get_metric_history(run.info.run_id, "loss/task")]
    assert run.info.end_time == times[-1]
    rows = (place.folder / "volatile/throughput.csv").read_text().splitlines()[1:]
    assert times == [int(row.rpartition(",")[2]) for row in rows]
    monkeypatch.setattr(follow, "LAST_WAIT", LIMIT)
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
    place.train((10, 20, 30), hook=lambda step: eventually(lambda: len(lost) == min(step // 10, 2)))
    assert len(lost) == 2
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
    uri, experiment = place.params.tracking.uri, place.params.tracking.experiment
    both = [Place(uri, experiment, tmp_path / f"s{n}" / "student", seed=n) for n in range(2)]
    inputs(tmp_path / "s0")
    shutil.copytree(tmp_path / "s0", tmp_path / "s1")
    threads = [threading.Thread(target=one.train, args=((10, 20),)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    (parent,) = place.found("ablation")
    assert {run.info.run_name for run in place.found()} == {"clip_kd-0", "clip_kd-1"}
    assert {run.data.tags["mlflow.parentRunId"] for run in place.found()} == {parent.info.run_id}


def test_the_same_work_anew_is_a_run_of_its_own(place, tmp_path):
    place.train([10])
    place.train([10], folder=tmp_path / "anew")
    assert len(place.found()) == 2
    assert len(place.found("ablation")) == 1


LOST = """
import os, signal, sys, time
from pathlib import Path
from cliprd.tracking import follow
from tests.tracking.test_runs import Place
follow.INTERVAL = 0.02
place = Place(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
def lost(step):
    if step == int(sys.argv[4]):
        while [s for s, _ in place.steps()] != [10, 20][: step // 10]:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
place.train((10, 20, 30), hook=lost)
"""


def test_a_training_whose_process_was_killed_goes_on_in_its_run(place):
    where = [place.params.tracking.uri, place.params.tracking.experiment, str(place.folder)]
    ended = subprocess.run([sys.executable, "-c", LOST, *where, "20"])
    assert ended.returncode == -signal.SIGKILL
    (killed,) = place.found()
    assert killed.info.status == "RUNNING"
    place.train((20, 30))
    (run,) = place.found()
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    assert place.steps() == told((10, 20, 30))


def test_work_that_was_lost_with_its_folder_goes_on_in_its_run(place):
    """Nothing of the first attempt is left but its run; place and work are the same."""

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.train([10], hook=stop)
    (killed,) = place.found()
    shutil.rmtree(place.folder)
    place.train((10, 20, 30))
    (run,) = place.found()
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    assert place.steps() == told((10, 20, 30))


def test_a_finished_training_that_is_asked_for_again_sends_what_was_missed(mlflow_server, place, monkeypatch):  # noqa: F811
    monkeypatch.setattr(follow, "LAST_WAIT", 0.1)
    mlflow_server.stop()
    try:
        place.train((10, 20))
    finally:
        mlflow_server.start()
    monkeypatch.setattr(follow, "LAST_WAIT", LIMIT)
    with tracking.following(place.params, "distill", inputs(place.folder.parent), place.folder):
        pass  # the stage finds it finished
    assert place.steps() == told((10, 20))
    assert place.found()[0].info.status == "FINISHED"


def test_a_training_that_was_not_followed_stays_unknown(place):
    untracked = tree("", distill={"method": "clip_kd"})
    with training(untracked, inputs(place.folder.parent), place.folder) as write:
        write(record(10))
    assert not (place.folder / runs.RUN_FILE).exists()
    with tracking.following(place.params, "distill", inputs(place.folder.parent), place.folder):
        pass
    assert not place.found()


def test_what_an_earlier_training_has_left_in_the_folder_is_never_sent(place):
    """The reader starts before the stage clears the folder."""
    with training(tree("", distill={"method": "clip_kd"}), inputs(place.folder.parent), place.folder) as write:
        write(record(50, 5.0))

    def slow():
        time.sleep(10 * follow.LOOK)
        yield from (10, 20)

    place.train(slow(), hook=lambda step: eventually(lambda: place.steps()))
    assert place.steps() == told((10, 20))


def test_what_cannot_be_written_ends_no_training(place, monkeypatch, capsys):
    def full(self, student):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.Note, "write", full)
    place.train([10, 20])
    assert capsys.readouterr().err.count("cliprd: warning") == 1
    assert (place.folder / "manifest.json").exists()


@pytest.mark.parametrize(
    ("text", "run_id"), [('{"run_id": "1", "experiment": "x"}', "1"), ('{"run_id": "1", "exp', None), ("[]", None)]
)
def test_a_note_of_an_older_cliprd_or_one_that_was_cut_breaks_nothing(text, run_id, tmp_path):
    (tmp_path / runs.RUN_FILE).parent.mkdir()
    (tmp_path / runs.RUN_FILE).write_text(text)
    settings = tree("http://127.0.0.1:1")
    assert runs.run_of(settings, tmp_path) == run_id
    assert runs.catch_up(settings, tmp_path) is None


def test_an_empty_uri_turns_tracking_off_and_loads_no_mlflow(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.tracking.test_runs import Place\n"
        "sys.modules.pop('mlflow')\nPlace('', 'none', Path(sys.argv[1])).train([1])\nassert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "student")], check=True)
    assert not (tmp_path / "student" / runs.RUN_FILE).exists()
