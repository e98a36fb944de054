import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads only slow such small matrices down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
