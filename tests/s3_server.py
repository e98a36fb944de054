"""A real S3 server on files: versitygw (`go install github.com/versity/versitygw/cmd/versitygw@v1.8.0`)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

KEY, SECRET = "cliprd", "cliprd-test-secret"


def _program() -> str:
    paths = [os.environ["PATH"], os.environ.get("GOBIN", ""), str(Path.home() / "go" / "bin")]
    if found := shutil.which("versitygw", path=os.pathsep.join(paths)):
        return found
    reason = "no S3 server here: " + (__doc__ or "")
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Serve `folder`, a bucket a subfolder, on a free port here; gives the clients' environment."""
    program = _program()
    port = free_port()
    log = (folder.parent / f"{folder.name}.log").open("wb")
    server = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(folder)],
        env={**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
        stdout=log,
        stderr=log,
    )
    try:
        _wait(server, port, Path(log.name))
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        ended = server.poll()
        server.kill()  # asked to end, it waits for idle connections
        server.wait()
        log.close()
        if ended is not None:
            pytest.fail(f"versitygw ended by itself with {ended}: {Path(log.name).read_text()}")


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        assert server.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"versitygw does not listen: {log.read_text()}")
