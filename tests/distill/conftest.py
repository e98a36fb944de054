import pytest
import torch

from tests.distill.rooms import build


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """Folder with `shards` and `cache`, made by the real stages; tests only read it."""
    folder = tmp_path_factory.mktemp("rooms")
    build(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads only slow such small models down; the tests that are about threads set their own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
