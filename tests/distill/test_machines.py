"""Several machines: what the environment says of them, and the same command started once for each, here."""

import os
import subprocess
import sys

import pytest

from cliprd.artifact import manifest
from cliprd.distill import machines
from cliprd.distill.machines import Nodes
from cliprd.errors import MachineError, RetryableError
from tests.distill.test_launch import LONGEST, command
from tests.ports import free_port

pytestmark = pytest.mark.slow

CLI = [sys.executable, "-m", "cliprd.cli"]
SET = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in (*SET, "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(arguments, rank: int, port: int, **more: str) -> subprocess.Popen:
    said = {**SET, "PET_NODE_RANK": str(rank), "PET_MASTER_PORT": str(port), **more}
    return subprocess.Popen(
        [*CLI, *arguments], env={**os.environ, **said}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_alone_without_the_variables_and_in_what_torchrun_has_started(monkeypatch):
    assert machines.among() is None
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    assert machines.among() == Nodes(2, 1, "localhost", 29500)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert machines.among() is None


@pytest.mark.parametrize("change", [{"PET_NNODES": "1:4"}, {"PET_MASTER_ADDR": None}, {"PET_NODE_RANK": "x"}])
def test_half_of_it_or_a_number_that_may_change_is_refused(monkeypatch, change):
    for name, value in {**SET, **change}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(MachineError, match="Set all four"):
        machines.among()


def test_the_address_is_that_of_the_way_to_the_first_machine(monkeypatch):
    assert Nodes(2, 1, "127.0.0.1", 29500).address() == "127.0.0.1"
    monkeypatch.setattr(machines, "MEET", -1)
    with pytest.raises(RetryableError, match=r"Machine 0 of 2, nowhere\.invalid"):
        Nodes(2, 1, "nowhere.invalid", 29500).address()


@pytest.mark.integration
def test_two_machines_make_what_two_processes_make(rooms, tmp_path):
    """What comes of one that is lost: tests/integration/test_nodes.py."""
    alone = [*CLI, *command(rooms, tmp_path / "one", processes=2)]
    subprocess.run(alone, check=True, capture_output=True, timeout=300)
    arguments, port = command(rooms, tmp_path / "student"), free_port()
    started = [start(arguments, rank, port, RANK=str(rank), WORLD_SIZE="2") for rank in (1, 0)]  # as a PyTorchJob's
    for process in started:
        _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
    assert manifest.verify(tmp_path / "student").files == manifest.verify(tmp_path / "one").files  # bit for bit
    assert start(arguments, 1, port).wait(LONGEST) == 0  # comes back when all is done: waits for nobody


@pytest.mark.integration
def test_wrong_input_ends_each_machine_with_its_own_code(rooms, tmp_path):
    arguments, port = command(rooms, tmp_path / "student", "--set", "augmentation.seed=4"), free_port()
    started = [start(arguments, rank, port) for rank in (0, 1)]
    said = [process.communicate(timeout=LONGEST)[1] for process in started]
    assert [process.returncode for process in started] == [3, 3], said
