"""What is wrong with `tracking` is said before any work; a server that is merely away is not wrong."""

import contextlib
import http.server
import sqlite3
import sys
import threading
import time

import pytest
import yaml
from mlflow import MlflowClient

from cliprd import params
from cliprd.cli import main
from cliprd.errors import CliprdError, InputError, MachineError, ParamsError
from cliprd.kubeflow import checks
from cliprd.tracking import check, follow, runs
from cliprd.tracking.check import check_start
from tests.benchmark.tools import classification
from tests.distill.rooms import build, make_params
from tests.mlflow_server import mlflow_server  # noqa: F401 — a fixture


def tree(uri, experiment="cliprd"):
    return params.validate({"tracking": {"uri": uri, "experiment": experiment}}, where="test")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "text.db").write_text(
        "no database at all, but long enough to be looked at by a reader of databases" * 9
    )
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "kind", "said"),
    [
        ("file:///tmp/mlruns", ParamsError, r"is a folder: MLflow no longer keeps runs in folders\. Use a"),
        ("file:mlruns", ParamsError, r"is a folder.*sqlite:///mlflow\.db"),
        ("./mlruns", ParamsError, r"is a folder.*mlflow migrate-filestore"),
        ("mlruns", ParamsError, "is a folder"),
        ("/tmp/mlruns", ParamsError, "is a folder"),
        ("localhost:5000", ParamsError, r"cannot be used.*Did you mean http://localhost:5000\?"),
        ("databricks", ParamsError, "cannot be used: .*databricks"),
        ("uc:x", ParamsError, "cannot be used: .*Unity Catalog"),
        ("ftp://host/x", ParamsError, "cannot be used: .*unsupported URI 'ftp://host/x'"),
        ("mongodb://host/x", ParamsError, "unsupported URI"),
        ("s3://bucket/mlruns", ParamsError, "unsupported URI"),
        ("http://", ParamsError, r"http:// names no server\. For example http://localhost:5000"),
        ("http://[::1", ParamsError, "Invalid IPv6 URL"),
        ("http://localhost:99999", ParamsError, "Port out of range"),
        ("sqlite://", ParamsError, "names no file"),
        ("sqlite:///:memory:", ParamsError, "names no file"),
        ("sqlite:///file/mlflow.db", MachineError, r"file/mlflow\.db cannot be written \(Not a directory"),
        ("sqlite:////proc/none/mlflow.db", MachineError, r"cannot be written \(.*: /proc\)"),
        ("sqlite:///folder", InputError, r"folder is no file\. Name a file in it"),
        ("sqlite:///text.db", InputError, "file is not a database"),
        ("sqlite+none:///x.db", ParamsError, "sqlite.none"),
        ("mysql+pymysql://user:secret@localhost/x", MachineError, "://…@localhost/x needs a driver .*pymysql"),
        ("postgresql+asyncpgx://localhost/x", ParamsError, "postgresql.asyncpgx"),
    ],
)  # fmt: skip
def test_what_no_waiting_cures_is_refused_at_once(here, monkeypatch, uri, kind, said):
    monkeypatch.setattr(sys.modules[check.__module__], "_within", lambda seconds, call: call())
    monkeypatch.setattr("cliprd.tracking.server.reach", lambda host, port: None)
    started = time.monotonic()
    with pytest.raises(kind, match=said) as caught:
        check(tree(uri))
    assert time.monotonic() - started < 20
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder", "text.db"]


@pytest.mark.parametrize(
    ("name", "said"), [("", "is empty"), ("  ", "is empty"), ("x" * 257, "is 257 characters long")]
)
def test_names_that_no_database_holds_are_refused(name, said):
    with pytest.raises(ParamsError, match=said):
        check(tree("sqlite:///mlflow.db", name))


def test_nothing_is_made_by_looking(here):
    assert "made by the first training" in check(tree("sqlite:///deep/below/mlflow.db"))
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder", "text.db"]
    assert check(tree("")) == "none (tracking.uri is empty)"


ANSWERS = {
    "401": (401, b"denied", r"failed with error code 401.*MLFLOW_TRACKING_USERNAME"),
    "403": (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', r"PERMISSION_DENIED: no.*MLFLOW_TRACKING_"),
    "404": (404, b"<html>nothing here</html>", "failed with error code 404.*Correct tracking.uri"),
    "page": (200, b"<html>a web server of somebody else</html>", "not in a valid JSON format"),
    "json": (200, b"{}", "answers, but not as an MLflow server does"),
    "302": (302, b"", "Exceeded 30 redirects"),
    "429": (429, b"slower", None),
    "500": (500, b"oops", None),
    "503": (503, b"starting", None),
    "closed": (0, b"", None),
    "silent": (-1, b"", None),
}


@contextlib.contextmanager
def answering(code, body):
    """A server that answers every request alike; code 0: by closing the connection, -1: never."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            if code <= 0:
                if code:
                    over.wait(60)
                self.connection.close()
                return
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            if code == 302:
                self.send_header("Location", "/login")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.daemon_threads = True
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}"
        finally:
            over.set()
            served.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", ANSWERS)
def test_servers_that_refuse_are_wrong_and_those_that_fail_are_away(answer, monkeypatch):
    monkeypatch.setattr(sys.modules[check.__module__], "LIMIT", 8.0)
    code, body, said = ANSWERS[answer]
    with answering(code, body) as uri:
        if said is None:
            assert "does not answer now" in check(tree(uri))
        else:
            with pytest.raises(ParamsError, match=said):
                check(tree(uri))
    assert "does not answer now (" in check(tree(uri))  # gone by now
    assert "records are kept and sent later" in check(tree("http://no-such-host.invalid:5000"))


def sqlite(here, name="cliprd"):
    """A database with an experiment."""
    uri = f"sqlite:///{here / 'mlflow.db'}"
    client = MlflowClient(uri)
    return uri, client, client.create_experiment(name)


def test_a_database_here(here):
    uri, client, experiment = sqlite(here)
    assert check(tree(uri)) == f"experiment 'cliprd' at {uri}"
    assert check(tree(uri, "other")) == f"experiment 'other' at {uri} (made by the first training)"
    assert client.get_experiment_by_name("other") is None
    client.delete_experiment(experiment)
    with pytest.raises(InputError, match=rf"was deleted\. Restore it .*--experiment-id {experiment}\) or set"):
        check(tree(uri))
    client.restore_experiment(experiment)
    check(tree(uri))
    (here / "old.db").write_bytes((here / "mlflow.db").read_bytes())  # MLflow looks at a database once in a process
    uri = f"sqlite:///{here / 'old.db'}"
    with sqlite3.connect(here / "old.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(ParamsError, match=rf"out-of-date database schema.*`mlflow db upgrade {uri}`"):
        check(tree(uri))


@pytest.mark.parametrize("location", ["{here}/file/artifacts", "file://{here}/file/artifacts", "/proc/none/artifacts"])
def test_artifacts_that_cannot_be_written(here, location):
    uri = f"sqlite:///{here / 'mlflow.db'}"
    MlflowClient(uri).create_experiment("cliprd", artifact_location=location.format(here=here))
    with pytest.raises(MachineError, match=r"keeps artifacts in a folder of the client's own, .* cannot be written"):
        check(tree(uri))


@pytest.mark.integration
def test_a_real_server(mlflow_server, capsys):  # noqa: F811
    client = MlflowClient(mlflow_server.uri)
    where = f"experiment 'known at the start' at {mlflow_server.uri}"
    assert check(tree(mlflow_server.uri, "known at the start")) == f"{where} (made by the first training)"
    assert client.get_experiment_by_name("known at the start") is None
    check(tree(mlflow_server.uri, "known at the start"), begin=True)
    assert check(tree(mlflow_server.uri, "known at the start")) == where
    client.delete_experiment(client.get_experiment_by_name("known at the start").experiment_id)
    with pytest.raises(InputError, match=r"'known at the start' at .* was deleted"):
        check(tree(mlflow_server.uri, "known at the start"), begin=True)
    with pytest.raises(ParamsError, match="cannot be used"):
        check(tree(f"{mlflow_server.uri}/somewhere/else"))
    database = mlflow_server._store
    check(tree(database, "known in the database"))
    with pytest.raises(ParamsError, match='database "none" does not exist'):
        check(tree(database.replace("/postgres?", "/none?")))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    build(folder)
    return folder


def command(inputs, name, uri, *more, experiment="cliprd"):
    settings = make_params(inputs).model_dump(mode="json")
    settings["tracking"] = {"uri": uri, "experiment": experiment}
    settings["distill"]["epochs"] = 1
    (inputs / "params.yaml").write_text(yaml.safe_dump(settings))
    return main([name, *map(str, more), "--params", str(inputs / "params.yaml")])


def distil(inputs, output, uri, **more):
    folders = ["--shards", inputs / "shards", "--cache", inputs / "cache", "--output", output]
    return command(inputs, "distill", uri, *folders, **more)


@pytest.mark.parametrize("processes", [1, 2])
def test_distill_does_not_begin(inputs, here, capsys, processes):
    uri, client, experiment = sqlite(here)
    client.delete_experiment(experiment)
    folders = ["--shards", inputs / "shards", "--cache", inputs / "cache", "--output", here / "student"]
    several = ["--set", f"distill.processes={processes}"]
    capsys.readouterr()  # MLflow's own client is loud
    for wrong, code, said in ((uri, 3, "was deleted. Restore it"), ("file:///tmp/mlruns", 2, "no longer keeps runs")):
        assert command(inputs, "distill", wrong, *folders, *several) == code
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert said in error[0]
        assert not (here / "student" / "history.csv").exists()


@pytest.mark.parametrize(("name", "more"), [("plan", []), ("doctor", []), ("retrain", ["--dry-run"])])
def test_plan_doctor_and_retrain_say_so(inputs, here, capsys, name, more):
    assert command(inputs, name, "file:///tmp/mlruns", *more) == 2
    told = capsys.readouterr()
    assert "MLflow no longer keeps runs in folders" in told.out + told.err
    if name != "retrain":
        assert command(inputs, name, "http://127.0.0.1:9", *more) == 0
        assert "experiment 'cliprd' at http://127.0.0.1:9 does not answer now" in capsys.readouterr().out


def test_a_training_that_was_begun_goes_on_without_a_log(here, capsys):
    uri, client, experiment = sqlite(here)
    client.delete_experiment(experiment)
    (here / "student" / "volatile").mkdir(parents=True)
    with pytest.raises(CliprdError):
        check_start(tree(uri), here / "student")
    (here / "student" / runs.RUN_FILE).write_text("{}")
    check_start(tree(uri), here / "student")
    assert "is not tracked: InputError: MLflow's experiment 'cliprd'" in capsys.readouterr().err


def test_a_training_that_is_finished_needs_no_tracker(inputs, here, capsys):
    assert distil(inputs, here / "student", "") == 0
    assert distil(inputs, here / "student", "file:///tmp/mlruns") == 0
    assert "is not tracked: ParamsError: tracking.uri = file:///tmp/mlruns" in capsys.readouterr().err


def test_a_server_that_is_away_starts_a_training(inputs, here, capsys, monkeypatch):
    monkeypatch.setattr(follow, "LAST_WAIT", 0.5)
    assert distil(inputs, here / "student", "http://127.0.0.1:9") == 0
    assert "sent later" in capsys.readouterr().err


def test_the_first_step_of_a_pipeline_says_so(inputs, here, capsys):
    settings = make_params(inputs).model_dump(mode="json", exclude_none=True)
    settings["benchmark"]["tasks"] = str(classification(here / "tasks").parent)
    settings["compare"]["reference"] = settings["distill"]["method"]
    runs_ = [{"method": settings["distill"]["method"], "seed": 0}]
    settings["tracking"] = {"uri": "file:///tmp/mlruns", "experiment": "cliprd"}
    with pytest.raises(SystemExit) as ended:
        checks.check_pipeline(settings, runs_, str(here / "plan.md"))
    assert ended.value.code == 2
    assert "MLflow no longer keeps runs in folders" in capsys.readouterr().err
    settings["tracking"]["uri"] = "http://127.0.0.1:9"
    checks.check_pipeline(settings, runs_, str(here / "plan.md"))
    assert "MLflow: experiment 'cliprd' at `http://127.0.0.1:9` does not answer now" in (here / "plan.md").read_text()
