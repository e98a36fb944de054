"""Trainings in steps that have runs, as KFP 2.17's MLflow plugin gives them: one tree on a real server."""

import contextlib
import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cliprd import cli, tracking
from cliprd.artifact import identity, manifest
from cliprd.artifact.workspace import Workspace
from cliprd.stages import compare
from cliprd.tracking import ablation, follow, parent, runs, scores
from cliprd.tracking.training import ABLATION, KIND
from tests.mlflow_server import LIMIT, mlflow_server  # noqa: F401 — a fixture
from tests.report import folders
from tests.tracking.test_ablation import resealed
from tests.tracking.trainings import inputs, record, training, tree

METHODS = ["clip_kd", "vrd"]
PARENT = "mlflow.parentRunId"
TOKEN = "a-token-of-the-plugin"


class Kubeflow:
    """Runs as KFP's driver makes them: the pipeline's, and one nested in it for each step that it starts."""

    def __init__(self, uri, name, monkeypatch):
        self.client, self._patch, self._uri = MlflowClient(uri), monkeypatch, uri
        self.experiment = self.client.create_experiment(name)
        self.root = self.client.create_run(self.experiment, run_name="pipeline").info.run_id

    @contextlib.contextmanager
    def step(self, name="step", **changes):
        """The variables in a step's container, while it runs; `changes` replace some."""
        made = self.client.create_run(self.experiment, run_name=name, tags={PARENT: self.root}).info.run_id
        variables = {
            "MLFLOW_RUN_ID": made, "MLFLOW_TRACKING_URI": self._uri, "MLFLOW_EXPERIMENT_ID": self.experiment,
            "MLFLOW_TRACKING_TOKEN": TOKEN, **changes,
        }  # fmt: skip
        with self._patch.context() as patch:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            yield made
        with contextlib.suppress(MlflowException):  # deleted meanwhile
            self.client.set_terminated(made)

    def runs(self, experiment=None):
        return list(self.client.search_runs([experiment or self.experiment]))

    def tree(self):
        """{run's name: its parent's}."""
        found = {run.info.run_id: run for run in self.runs()}
        names = {None: None, **{run_id: run.info.run_name for run_id, run in found.items()}}
        tree = {run.info.run_name: names[run.data.tags.get(PARENT)] for run in found.values()}
        assert len(tree) == len(found)
        return tree


@pytest.fixture
def kubeflow(mlflow_server, request, monkeypatch):  # noqa: F811
    for name in ("LOOK", "INTERVAL", "FIRST_PAUSE"):
        monkeypatch.setattr(follow, name, 0.02)
    monkeypatch.setattr(follow, "LAST_WAIT", LIMIT)
    monkeypatch.setattr(follow, "LAST_WAIT_STOPPED", LIMIT)
    return Kubeflow(mlflow_server.uri, request.node.name, monkeypatch)


def train(settings, folder, steps=(1, 2), stop=False):
    with contextlib.suppress(KeyboardInterrupt), training(settings, inputs(folder.parent), folder) as write:
        for step in steps:
            write(record(step, 1 / step))
        if stop:
            raise KeyboardInterrupt


def found(client, name, kind="training"):
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = '{kind}'")) if experiment else []


@pytest.mark.integration
def test_an_ablation_is_one_tree(kubeflow, request, tmp_path, capsys):
    """Two trainings, their benchmarks and the comparison, each in a step; then the same again, in another step."""
    folder = folders.write_grid(tmp_path, METHODS, [0], only=folders.tasks()[:2])
    grid = {"ablation": {"methods": METHODS, "seeds": [0]}, "compare": {"reference": "clip_kd"}}
    settings = tree("", "of params", **grid)  # as compiled: a file is none in a pod
    teacher, reports = folder["benchmarks"] / "teacher", tmp_path / "reports"
    for method in METHODS:
        own = settings.model_copy(update={"distill": settings.distill.model_copy(update={"method": method})})
        student = folder["students"] / f"{method}-0"
        scored = folder["benchmarks"] / student.name
        written = manifest.read(student)
        with kubeflow.step(f"distill {method}"):
            train(own, student)
        resealed(scored, student, written)
        (scored / "scores.json").write_text("{}")
        given = {"model": student, "reference": teacher}
        with kubeflow.step(f"benchmark {method}"), tracking.following(own, "benchmark", given, scored):
            pass
    (teacher / "scores.json").write_text("{}")
    (early,) = ablation.tables(tree(kubeflow.client.tracking_uri, request.node.name))
    assert (early.methods, early.headline, len(early.runs)) == ([], "", 2)
    with kubeflow.step("compare") as step:
        for _ in range(2):  # a repeated pod finds it finished
            with tracking.following(settings, "compare", folder, reports):
                compare.run(settings, folder, reports)
    key = json.loads((student / runs.RUN_FILE).read_text())["training"]["ablation"]["key"]
    assert kubeflow.tree() == {
        "pipeline": None,
        **{step: "pipeline" for m in METHODS for step in (f"distill {m}", f"benchmark {m}")},
        "compare": "pipeline",
        "clip_kd-0": "distill clip_kd",
        "vrd-0": "distill vrd",
        f"comparison-{key[:8]}": "compare",
    }
    assert kubeflow.client.get_experiment_by_name("of params") is None
    by_name = {run.info.run_name: run for run in kubeflow.runs()}
    assert {run.info.status for name, run in by_name.items() if name != "pipeline"} == {"FINISHED"}
    assert not any(ABLATION in run.data.tags for run in by_name.values())
    assert by_name["vrd-0"].data.tags[scores.BENCHMARK] == manifest.read(folder["benchmarks"] / "vrd-0").fingerprint
    report = {a.path for a in kubeflow.client.list_artifacts(by_name[f"comparison-{key[:8]}"].info.run_id, "report")}
    assert report == {f"report/{name}" for name in ("comparison.md", "comparison.json", "index.html")}
    assert not kubeflow.client.get_run(step).data.metrics  # the step's own run is KFP's

    shown = ["--set", f"tracking.uri={kubeflow.client.tracking_uri}", "--experiment", request.node.name]
    assert cli.main(["ablation", "show", *shown]) == 0
    said = capsys.readouterr()
    (table,) = ablation.tables(tree(kubeflow.client.tracking_uri, request.node.name))
    assert said.out == ablation.text([table])
    assert (table.name, table.note.partition(",")[0]) == (f"ablation-{key[:8]}", "300 pairs")
    assert {row.name for row in table.methods} == {"teacher", *METHODS}
    assert {row.name for row in table.runs} == {"clip_kd-0", "vrd-0"}
    assert cli.main(["ablation", "open", "--print", *shown]) == 0

    again = tracking.following(own, "distill", inputs(student.parent), student)
    with kubeflow.step("distill again"), again:  # another pipeline run that finds the student finished
        pass
    without = tree(kubeflow.client.tracking_uri, **grid)  # on a machine without the variables
    with tracking.following(without, "compare", folder, reports):
        pass  # the report is there already
    (comparison,) = found(kubeflow.client, request.node.name, "comparison")
    assert len(found(kubeflow.client, request.node.name)) == 2
    kubeflow.client.delete_run(comparison.info.run_id)
    with tracking.following(without, "compare", folder, reports):
        pass
    (comparison,) = found(kubeflow.client, request.node.name, "comparison")
    assert PARENT not in comparison.data.tags
    assert ablation.tables(tree(kubeflow.client.tracking_uri, request.node.name)) == [table]
    secret = json.dumps([run.to_dictionary() for run in kubeflow.runs()]) + said.out + said.err
    assert TOKEN not in secret + (student / runs.RUN_FILE).read_text()


@pytest.mark.integration
def test_a_training_that_is_resumed_goes_on_in_its_run(kubeflow, request, tmp_path):
    settings, folder = tree("", distill={"method": "clip_kd"}), tmp_path / "student"
    with kubeflow.step("distill") as step:
        train(settings, folder, (1, 2), stop=True)
        (run,) = found(kubeflow.client, request.node.name)
        assert (run.info.status, run.data.tags[PARENT]) == ("KILLED", step)
    with kubeflow.step("distill again"):
        train(settings, folder, (2, 3))
    (again,) = found(kubeflow.client, request.node.name)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert [m.step for m in kubeflow.client.get_metric_history(run.info.run_id, "loss/task")] == [1, 2, 3]


@pytest.mark.integration
def test_what_the_server_missed_is_sent_below_the_step_by_another_process(
    mlflow_server,  # noqa: F811
    kubeflow,
    request,
    tmp_path,
    monkeypatch,
    capsys,
):
    settings, folder = tree("", distill={"method": "clip_kd"}), tmp_path / "student"
    monkeypatch.setattr(follow, "LAST_WAIT", 0.1)
    with kubeflow.step("distill") as step:
        mlflow_server.stop()
        try:
            train(settings, folder)
        finally:
            mlflow_server.start()
    assert "have not reached MLflow" in capsys.readouterr().err
    later = tree(mlflow_server.uri, "of params")
    assert tracking.catch_up(later, folder) == tracking.run_of(later, folder)
    (run,) = found(kubeflow.client, request.node.name)
    assert (run.data.tags[PARENT], run.info.status) == (step, "FINISHED")
    assert kubeflow.client.get_experiment_by_name("of params") is None


@pytest.mark.integration
@pytest.mark.parametrize("wrong", ["unknown", "deleted", "elsewhere"])
def test_a_run_that_is_not_there_is_one_line_and_the_tree_is_as_without(kubeflow, request, tmp_path, capsys, wrong):
    name = f"of params, {wrong}"
    settings = tree(kubeflow.client.tracking_uri, name, distill={"method": "clip_kd"})
    changes = {"unknown": {"MLFLOW_RUN_ID": "0" * 32}, "elsewhere": {"MLFLOW_RUN_ID": "0" * 32}}.get(wrong, {})
    if wrong == "elsewhere":  # params name another server than the plugin, and win
        changes["MLFLOW_TRACKING_URI"] = "http://someone:secret@plugin.example"
    with kubeflow.step(**changes) as step:
        if wrong == "deleted":
            kubeflow.client.delete_run(step)
        train(settings, tmp_path / "student")
        (line,) = capsys.readouterr().err.splitlines()
        assert tracking.catch_up(settings, tmp_path / "student") == tracking.run_of(settings, tmp_path / "student")
    assert capsys.readouterr().err == ""  # it is noted
    assert line.startswith("cliprd: warning: training clip_kd-0 is not under run ")
    assert ("it was deleted at" if wrong == "deleted" else "no such run at") in line
    assert line.endswith("set tracking.uri empty." if wrong == "elsewhere" else "It is tracked without.")
    assert "secret" not in line
    (run,), (above,) = found(kubeflow.client, name), found(kubeflow.client, name, "ablation")
    assert run.data.tags[PARENT] == above.info.run_id
    assert (run.info.status, above.info.status) == ("FINISHED", "FINISHED")
    assert parent.MEMBER not in run.data.tags


def test_a_server_that_is_away_ends_no_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(follow, "LAST_WAIT", 0.1)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    train(tree(""), tmp_path / "student")
    assert (tmp_path / "student/manifest.json").exists()
    assert "have not reached MLflow" in capsys.readouterr().err


def test_the_variables_change_no_identity_and_alone_no_tracking(tmp_path, monkeypatch):
    def seen():
        work = Workspace(tmp_path / "s", stage="distill", params={}, inputs={})
        return work.identity, identity.digest("cliprd.stages.distill"), tracking.check(tree("")), parent.variables()

    before = seen()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert seen() == before
    assert parent.placed(tree("")) == tree("")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    assert seen()[:2] == before[:2]
    assert tracking.check(tree("")) == "run abc at http://127.0.0.1:9"
    assert parent.variables() == {"MLFLOW_RUN_ID": "abc", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    assert parent.placed(tree("http://own")) == tree("http://own")
