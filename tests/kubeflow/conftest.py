"""A server, and the command line in this process: real sockets, real `kfp.Client`, no waiting."""

import functools
import inspect
from types import SimpleNamespace

import pytest
from kfp import client as kfp_client
from kfp.dsl import pipeline_task

from cliprd import cli
from cliprd.kubeflow import client, follow, submit
from cliprd.kubeflow.compile import compile_pipeline
from cliprd.params import Params
from tests.kubeflow import kfp_server
from tests.kubeflow.paths import IMAGE, QUIET, ROOT


@pytest.fixture(scope="session", autouse=True)
def _callers_without_their_source():
    """KFP asks at each setting of a task who called it, which reads the source of all frames: seconds in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=functools.partial(inspect.stack, 0)))
        yield


@pytest.fixture(scope="session")
def compiled():
    """The compiler, which makes each pipeline once: it takes most of a test's time."""
    made: dict[tuple[str, str, str], str] = {}

    def compile_once(name: str, params: Params, image: str) -> str:
        key = (name, params.model_dump_json(), image)
        if key not in made:
            made[key] = compile_pipeline(name, params, image)
        return made[key]

    return compile_once


@pytest.fixture
def alone(monkeypatch, tmp_path, compiled):
    """No context file, token or host of whoever runs the tests; short times."""
    monkeypatch.setattr(submit, "compile_pipeline", compiled)
    for name in ("KFP_TOKEN", "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kfp_client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(client, "READ_SECONDS", 5.0)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(ROOT)


@pytest.fixture
def server(alone):
    with kfp_server.running() as made:
        yield made


@pytest.fixture
def cliprd(alone, capsys):
    """Run `cliprd pipeline ...`; gives exit code, stdout, stderr."""

    def run(action: str, name: str, *arguments: str, image: str | None = IMAGE) -> tuple[int, str, str]:
        given = ["--image", image] if image else []
        code = cli.main(["pipeline", action, name, *given, *QUIET, *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def plain(alone, capsys):
    """Run `cliprd pipeline ...` with these arguments alone; gives exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["pipeline", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def fails(cliprd):
    """Run it, expecting one clear line."""
    return _failing(cliprd)


@pytest.fixture
def fails_plain(plain):
    """As `fails`, with these arguments alone."""
    return _failing(plain)


def _failing(call):
    def run(code: int, *arguments: str, **options) -> str:
        got, out, err = call(*arguments, **options)
        assert got == code, (out, err)
        (line,) = [line for line in err.splitlines() if line.startswith("cliprd: error: ")]
        for text in (out, err):
            assert "Traceback" not in text
            assert "defect" not in text
            assert "s3cr3t" not in text
        return line

    return run
