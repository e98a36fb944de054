import pytest
import torch

from tests.distill.rooms import build


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """Folder with `shards` and `cache`, made by the real stages; tests only read it."""
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("rooms")
    build(folder)
    return folder
