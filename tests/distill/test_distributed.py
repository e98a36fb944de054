"""The same training on one process and on several; worlds of gloo ranks on the CPU."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cliprd.distill import device
from cliprd.distill.distributed import World, join, launched
from cliprd.distill.division import Division
from cliprd.distill.loader import Loader
from cliprd.distill.order import Position
from cliprd.distill.train import sections, train
from cliprd.errors import MachineError, ParamsError
from cliprd.models.image_spec import ImageSpec
from cliprd.models.student import student_config
from tests.distill.ranks import BATCH, CASES, SAVE, STOP
from tests.distill.rooms import SAMPLES, make_params, open_rooms

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PLAIN = {  # what these are to be equal to
    "micro": "clip_rd",
    "local": "clip_rd",
    "local_chunked": "chunked",
    "local_projected": "projected_task",
    "local_micro": "clip_rd",
}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_near(one, other):
    """Histories: equal but for rounding."""
    assert [row.keys() for row in one] == [row.keys() for row in other]
    for row, twin in zip(one, other, strict=True):
        assert row == pytest.approx(twin, rel=2e-4, abs=1e-6)


@pytest.fixture(scope="module")
def ranks(rooms, tmp_path_factory):
    """What `ranks.py` leaves."""
    output = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.distill.ranks", str(rooms), str(output)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def alone(rooms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    params = make_params(rooms)
    train(params, *open_rooms(rooms, params), folder)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_terms_and_gradients_equal_those_of_one_process(ranks, case, size):
    """float64, two steps, so that the second starts from what the first made of the gradients."""
    one = torch.load(ranks / f"{PLAIN.get(case, case)}-1-0.pt", weights_only=True)
    assert any(name.startswith("0.gradient.student.text") for name in one)
    if case != "unused_scale":
        assert {"0.gradient.loss.image_projection.weight", "0.gradient.loss.cross_scale"} <= one.keys()
        assert "0.gradient.student.logit_scale" in one
    of_rank = [torch.load(ranks / f"{case}-{size}-{rank}.pt", weights_only=True) for rank in range(size)]
    for other in of_rank:  # exactly equal among themselves: every rank takes the same decisions
        assert other.keys() == of_rank[0].keys()
        assert [name for name, value in other.items() if not torch.equal(value, of_rank[0][name])] == []
    used = {name: value for name, value in of_rank[0].items() if name in one or value.abs().sum() != 0}
    assert used.keys() == one.keys()
    for name, value in one.items():
        torch.testing.assert_close(used[name], value, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: name + text)


@pytest.mark.integration
def test_one_process_resumes_a_training_of_two(rooms, ranks, alone):
    folder = ranks / "from-two"
    before = (folder / "history.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in before[1:]] == [2, 4, 6, STOP]
    params, records = make_params(rooms, checkpoint_every=SAVE), []
    train(params, *open_rooms(rooms, params), folder, records.append)
    assert records[0].step == 8  # after the checkpoint of step 6, in the second epoch of 5 steps
    assert_near(history(folder), history(alone))


@pytest.mark.integration
def test_two_processes_resume_a_training_of_one(ranks, alone):
    assert_near(history(ranks / "from-one"), history(alone))
    steps = [row["step"] for row in history(ranks / "from-one")]
    assert steps == [2, 4, 6, 8, 10, 12, 14, 15]  # one writer


def test_a_single_process_is_not_distributed(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not launched()
    with join(CPU) as world:
        assert world == World()
    assert not torch.distributed.is_initialized()
    x, model = torch.ones(2, 3), torch.nn.BatchNorm1d(3)
    assert world.gather(x, 2) is world.agree(x) is x
    assert world.share(x) is x
    assert world.wrap(model) is world.synchronise_norms(model, CPU) is model
    assert world.leads
    assert world.part(5) == slice(0, 5)


def test_torchrun_with_one_process_is_not_distributed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched()
    with join(CPU) as world:
        assert world == World()


@pytest.mark.parametrize("budget", [0, 2**30])
def test_ranks_build_only_their_part_of_each_batch(rooms, budget):
    params = make_params(rooms, batch_size=BATCH, shuffle_buffer=20)
    division = Division(SAMPLES, BATCH)
    shards, cache = open_rooms(rooms, params)
    spec, config = ImageSpec(size=16, mean=(0.5,) * 3, std=(0.5,) * 3), student_config(params.student)
    made = []

    def batches(part):
        loader = Loader(params, shards, cache, spec, config, part=part, memory_budget=budget)
        batch = loader._prepare.batch
        loader._prepare.batch = lambda rows, epoch: made.append(len(rows)) or batch(rows, epoch)
        return list(loader.batches(Position(0, 1)))

    whole = batches(None)
    made.clear()
    parts = [batches(World(rank, 3).part) for rank in range(3)]
    assert {division.size(step) for step in range(division.steps)} == {9, 10}
    assert set(made) == {3, 4}
    for batch, *slices in zip(whole, *parts, strict=True):
        for field in ("images", "teacher_image", "teacher_text"):
            assert torch.equal(torch.cat([getattr(s, field) for s in slices]), getattr(batch, field))
        for rank, piece in enumerate(slices):  # captions are cut to the longest of the slice
            tokens, length = batch.tokens[World(rank, 3).part(len(batch.tokens))], piece.tokens.shape[1]
            assert torch.equal(piece.tokens, tokens[:, :length])
            assert not tokens[:, length:].any()


def test_batch_norms_on_cpus_are_refused_and_on_gpus_synchronised():
    from timm.layers import BatchNormAct2d

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), BatchNormAct2d(4), torch.nn.BatchNorm2d(4))
    with pytest.raises(ParamsError, match=r"batch norms, .* 2 processes on a CPU\. Set distill\.processes to 1"):
        World(0, 2).synchronise_norms(model, CPU)
    assert World(0, 2).synchronise_norms(plain := torch.nn.Linear(2, 2), CPU) is plain
    before, x = model.state_dict(), torch.randn(5, 3, 2, 2)
    expected = model.eval()(x)
    converted = World(0, 2).synchronise_norms(model, CUDA)
    assert sum(isinstance(m, torch.nn.SyncBatchNorm) for m in converted.modules()) == 2
    assert converted.state_dict().keys() == before.keys()
    assert torch.equal(converted(x), expected)  # as it is exported


def test_the_number_of_processes_is_resolved_and_checked(rooms, monkeypatch):
    def count(**distill):
        return device.processes(make_params(rooms, **distill).distill)

    assert count(device="cpu") == 1
    assert count(device="cpu", processes=3) == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert count(device="auto") == 2
    assert count(device="cpu") == 1
    assert count(device="cuda", processes=1) == 1
    with pytest.raises(MachineError, match=r"processes = 3, but torch sees 2 GPUs\."):
        count(device="auto", processes=3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MachineError, match="Process 2 of this machine has no GPU"), join(CUDA):
        pass


def test_division_parameters_do_not_identify_a_training(rooms):
    for dividing in ({"processes": 4}, {"micro_batch_size": 3}, {"local_loss": True}):
        assert sections(make_params(rooms, **dividing)) == sections(make_params(rooms))
        assert not dividing.keys() & sections(make_params(rooms))["distill"].keys()
    assert sections(make_params(rooms, lr=1.0)) != sections(make_params(rooms))


def test_followers_have_random_numbers_of_their_own():
    def draw(world):
        torch.manual_seed(5)
        world.seed(5, 10)
        return torch.rand(3).tolist()

    assert draw(World()) == draw(World(0, 3)) != draw(World(1, 3)) != draw(World(2, 3))
    assert draw(World(1, 3)) == draw(World(1, 3))
