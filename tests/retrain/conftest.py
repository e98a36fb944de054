"""Kubeflow's server and a process without anybody's settings, as its own tests have them."""

from tests.kubeflow.conftest import alone, compiled, server  # noqa: F401 (fixtures)
