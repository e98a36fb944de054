"""Which tests run in one process where `pytest -n` runs several."""

import pytest

# They look at all containers of the image, each other's among them.
ENGINE = ("test_kubeflow.py", "test_stack.py")


def pytest_collection_modifyitems(items):
    """A file's tests stay together: they share fixtures that cost seconds."""
    for item in items:
        group = "engine" if item.path.name in ENGINE else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
