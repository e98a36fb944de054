"""A bucket on a real S3 server (versitygw)."""

import pytest

from cliprd.storage import s3
from tests import s3_server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with s3_server.running(tmp_path_factory.mktemp("s3")) as variables, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        s3.client.cache_clear()
        s3.client().create_bucket(Bucket="models")
        yield "s3://models"
    s3.client.cache_clear()
