"""The S3 server and the proxy of tests/storage."""

from tests.storage.conftest import _proxy, bucket, faults, scratch, server

__all__ = ["_proxy", "bucket", "faults", "scratch", "server"]
