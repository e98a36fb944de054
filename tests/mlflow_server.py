"""A real MLflow server: its runs in a real PostgreSQL (Debian's), its artifacts on a real S3 server (versitygw).

    from tests.mlflow_server import mlflow_server          # a session fixture, one server a test worker

    def test_something(mlflow_server):
        client = MlflowClient(mlflow_server.uri)

Tests share the server: let each use an experiment of its own name. Whoever stops it starts it again.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import s3_server
from tests.ports import free_port

LIMIT = 300.0  # seconds for a server to answer, on a machine that is busy
BUCKET = "mlflow"
DESTINATION = f"cliprd-s3://{BUCKET}/artifacts"


def missing(reason: str) -> None:
    """Skip, but never in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Postgres:
    """A PostgreSQL of its own, in `folder`, over a Unix socket there; it refuses root, which becomes `postgres`."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        path = os.pathsep.join([*map(str, reversed(found)), os.environ["PATH"]])
        self._programs = {name: shutil.which(name, path=path) for name in ("initdb", "postgres")}
        if None in self._programs.values():
            missing("no PostgreSQL here: apt-get install postgresql")
        # Not under pytest's folder: that is closed to user `postgres`, and a socket's path may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=folder))
        self._user: dict[str, object] = {}
        if os.geteuid() == 0:
            try:
                entry = pwd.getpwnam("postgres")
            except KeyError:
                missing("no user `postgres` here: apt-get install postgresql")
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"postgresql+psycopg2://postgres@/postgres?host={self.folder}"

    def start(self) -> None:
        """Make the cluster at the first start; returns when it takes connections."""
        data = self.folder / "data"
        if not data.exists():
            command = [self._programs["initdb"], "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
            made = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **self._user)
            assert made.returncode == 0, made.stderr
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs["postgres"], "-D", data, *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._user,
            )
        import psycopg2

        for _ in _polls():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            try:
                psycopg2.connect(host=str(self.folder), user="postgres", dbname="postgres").close()
                return
            except psycopg2.OperationalError:
                pass
        pytest.fail("PostgreSQL takes no connections: " + (self.folder / "log").read_text()[-4000:])

    def stop(self) -> None:
        """End it at once, connections or not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # its "fast" shutdown
            self._process.wait(LIMIT)
            self._process = None


class MlflowServer:
    """`mlflow server` on a database and an artifact destination.

    Attributes:
        uri: its address, the same after a restart.
        environment: of the server; the S3 server's address and credentials are in it.
    """

    def __init__(self, folder: Path, store: str, environment: Mapping[str, str], destination: str) -> None:
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self.log = folder / "mlflow.log"
        self._folder = folder
        self._store, self._destination = store, destination
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that leads the server's group."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self._store, "--serve-artifacts"]
        command += ["--artifacts-destination", self._destination]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in _polls():
            assert self._process.poll() is None, self.log.read_text()[-4000:]
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                pass
        pytest.fail("MLflow's server does not answer: " + self.log.read_text()[-4000:])

    def stop(self) -> None:
        """Kill it with its workers, in the middle of whatever it does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(LIMIT)
            self._process = None

    def restart(self) -> None:
        """Kill and start it at the same address."""
        self.stop()
        self.start()


def _polls() -> Iterator[int]:
    end = time.monotonic() + LIMIT
    count = 0
    while time.monotonic() < end:
        yield count
        count += 1
        time.sleep(0.1)


@contextmanager
def running(folder: Path, destination: str = DESTINATION) -> Iterator[MlflowServer]:
    """PostgreSQL, S3 and MLflow's server; all are gone afterwards.

    Args:
        folder: for logs and buckets.
        destination: `s3://<BUCKET>/...` hands out presigned addresses; the default sends all through the server.
    """
    database = Path(tempfile.mkdtemp(prefix="cliprd-"))
    database.chmod(0o755)
    postgres = server = None
    try:
        (folder / "buckets" / BUCKET).mkdir(parents=True)
        postgres = Postgres(database)
        with s3_server.running(folder / "buckets") as environment:
            postgres.start()
            server = MlflowServer(folder, postgres.uri, environment, destination)
            server.start()
            try:
                yield server
            finally:
                server.stop()
    finally:
        if postgres is not None:
            postgres.stop()
        shutil.rmtree(database, ignore_errors=True)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One server for all tests of a worker."""
    with running(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server
