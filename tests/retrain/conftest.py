"""The server of the Kubeflow tests, for `--runner kfp`."""

from tests.kubeflow.conftest import alone, server

__all__ = ["alone", "server"]
