import json

import pytest
import torch
from torch import nn

from cliprd.distill.checkpoint import Checkpoints, State
from cliprd.distill.objective import build_loss
from cliprd.distill.optimizer import build_optimizer, named_parameters
from cliprd.distill.order import Position
from cliprd.errors import InputError
from cliprd.params import Distill


def make(seed=0):
    torch.manual_seed(seed)
    model, loss = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), build_loss(Distill(method="vrd", seed=seed), 3, 4)
    return State(model, loss, build_optimizer(named_parameters(model, loss).values(), Distill()))


def train(state, steps=3):
    for _ in range(steps):
        state.model(torch.randn(5, 3)).square().sum().backward()
        state.loss.cross_scale.square().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()


def same(one, other):
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 3, 6 and 9, of which two are kept; the state after step 9."""
    checkpoints, state = Checkpoints(tmp_path, "me"), make()
    for step in (3, 6, 9):
        train(state)
        checkpoints.save(state, step=step, position=Position(1, step))
    return checkpoints, state


def test_round_trip_and_what_follows(saved):
    checkpoints, state = saved
    other = make(seed=5)
    assert checkpoints.load(other) == (9, Position(1, 9))
    assert same(state, other)
    state.restore(state.tensors())  # sets the generator
    train(state)
    checkpoints.load(other)
    train(other)
    assert same(state, other)  # weights, moments, step counters and the random numbers drawn


def test_two_are_kept(saved):
    checkpoints, _ = saved
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == [
        "step-00000006.json",
        "step-00000006.safetensors",
        "step-00000009.json",
        "step-00000009.safetensors",
    ]
    assert checkpoints.last().name == "step-00000009.safetensors"


def test_equal_states_give_equal_bytes(saved, tmp_path):
    checkpoints, state = saved
    other = Checkpoints(tmp_path / "other", "me")
    checkpoints.load(state)
    other.save(state, step=9, position=Position(1, 9))
    assert other.last().read_bytes() == checkpoints.last().read_bytes()


def flip(path, where):
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 0.8, 0.95])
def test_a_flipped_byte_is_named_and_deleting_it_helps(saved, suffix, where):
    checkpoints, _ = saved
    damaged = checkpoints.folder / f"step-00000009{suffix}"
    flip(damaged, where)
    with pytest.raises(InputError, match=rf"step-00000009\{suffix} is damaged.*Delete this file.*step 6") as caught:
        checkpoints.load(make())
    assert caught.value.exit_code == 3
    damaged.unlink()
    assert checkpoints.load(make()) == (6, Position(1, 6))


def test_both_damaged(saved):
    checkpoints, _ = saved
    for step in (6, 9):
        flip(checkpoints.folder / f"step-0000000{step}.safetensors", 0.5)
    for then in ("step 6", "its beginning"):
        with pytest.raises(InputError, match=then):
            checkpoints.load(make())
        checkpoints.last().unlink(missing_ok=True)
        checkpoints.last().with_suffix(".json").unlink()
    assert checkpoints.load(make()) is None


def test_truncated(saved):
    checkpoints, _ = saved
    path = checkpoints.last()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        checkpoints.load(make())


def test_what_a_kill_leaves_is_swept(saved):
    checkpoints, _ = saved
    (checkpoints.folder / ".step-00000012.safetensors.abc.tmp").write_bytes(b"half")
    (checkpoints.folder / "step-00000012.safetensors").write_bytes(b"its JSON never came")
    assert checkpoints.load(make())[0] == 9
    assert len(list(checkpoints.folder.iterdir())) == 4


def test_another_training_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match="belongs to a training with other parameters"):
        Checkpoints(tmp_path, "another").load(make())


def test_no_pickle(saved):
    checkpoints, _ = saved
    for path in checkpoints.folder.glob("*.json"):
        assert json.loads(path.read_text())["sha256"]
    assert {p.suffix for p in checkpoints.folder.iterdir()} == {".json", ".safetensors"}
