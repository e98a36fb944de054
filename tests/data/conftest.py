"""A bucket of a real S3 server; see `tests.storage.conftest`."""

from tests.storage.conftest import bucket, scratch, server

__all__ = ["bucket", "scratch", "server"]
