import os

import pytest

from cliprd.storage import s3
from tests import s3_server
from tests.storage.proxy import FaultProxy, between


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The clients' environment of a real S3 server with the empty bucket `pairs`."""
    with s3_server.running(tmp_path_factory.mktemp("s3")) as variables:
        yield variables


@pytest.fixture(scope="session")
def _proxy(server):
    with between(
        int(server["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]), seed=int(os.environ.get("CLIPRD_TEST_SEED", "0"))
    ) as proxy:
        yield proxy


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """This machine's scratch folder, empty."""
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def bucket(server, monkeypatch, scratch, request):
    """A client of the server; the bucket `pairs` is there, and the environment leads to it."""
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3, "FIRST_PAUSE", 0.02)
    s3.client.cache_clear()
    client = s3.client()
    if not client.list_buckets()["Buckets"]:
        client.create_bucket(Bucket="pairs")
    yield client
    s3.client.cache_clear()


@pytest.fixture
def faults(bucket, _proxy, monkeypatch) -> FaultProxy:
    """The proxy, through which cliprd's own client now goes; `bucket` goes past it."""
    from botocore.retries.standard import ExponentialBackoff

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.02)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_proxy.port}")
    monkeypatch.setattr(s3, "READ_TIMEOUT", 3)
    monkeypatch.setattr(s3, "ATTEMPTS", 12)
    s3.client.cache_clear()
    _proxy.plan(0)
    return _proxy
