"""Schedule, optimiser, objective, device, history and guard."""

import math

import pytest
import torch
from torch import nn

from cliprd.distill import device
from cliprd.distill.divergence import FiniteCheck
from cliprd.distill.history import History, last_row
from cliprd.distill.objective import build_loss, resolve_weights
from cliprd.distill.optimizer import build_optimizer, named_parameters
from cliprd.distill.record import Record
from cliprd.distill.schedule import learning_rate
from cliprd.errors import DivergedError, MachineError, ParamsError
from cliprd.losses import LossWeights, method_weights
from cliprd.models.student import build_student
from cliprd.params import Distill, Params, Weights
from tests.distill.rooms import STUDENT

pytestmark = pytest.mark.slow


def test_schedule_warms_up_and_ends_near_zero():
    rates = [learning_rate(step, base=2.0, warmup=10, total=110) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_schedule_without_warmup_and_shorter_than_its_warmup():
    assert learning_rate(0, base=1.0, warmup=0, total=5) == 1.0
    assert [learning_rate(s, base=1.0, warmup=10, total=3) for s in range(3)] == pytest.approx([0.1, 0.2, 0.3])


@pytest.fixture(scope="module")
def model():
    return build_student(Params.model_validate({"student": {"config": STUDENT}}).student, seed=0)


def test_only_matrices_decay(model):
    loss = build_loss(Distill(method="clip_rd"), 16, 24)
    parameters = named_parameters(model, loss)
    optimizer = build_optimizer(parameters.values(), Distill(weight_decay=0.25))
    names = {id(p): name for name, p in parameters.items()}
    decay = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups}
    assert decay[0.25] | decay[0.0] == set(parameters)
    assert {"student.logit_scale", "loss.cross_scale", "loss.image_scale", "loss.text_scale"} <= decay[0.0]
    assert {"loss.image_projection.bias", "student.ln_final.weight", "student.visual.class_embedding"} <= decay[0.0]
    assert {"loss.image_projection.weight", "student.token_embedding.weight", "student.text_projection"} <= decay[0.25]
    assert not [name for name in decay[0.25] if name.endswith(("bias", "scale"))]


def test_overrides_merge_over_the_method():
    distill = Distill(method="clip_kd-exp", weights=Weights(fd=10.0, xrd=2.0, icl=0.0))
    assert resolve_weights(distill) == (LossWeights(task=1, hrd=1, icl=0, fd=10, xrd=2), "exp")
    assert resolve_weights(Distill(method="clip_rd", scale_mode="exp")) == (method_weights("clip_rd"), "exp")
    assert resolve_weights(Distill(method="clip_rd-raw", scale_mode="exp"))[1] == "raw"


def test_no_term_at_all_is_refused():
    with pytest.raises(ParamsError, match="leaves no term"):
        build_loss(Distill(method="baseline", weights=Weights(task=0.0)), 4, 4)


def test_projections_follow_the_seed():
    weights = [build_loss(Distill(seed=seed), 4, 6).image_projection.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="sees no GPU"):
        device.resolve(Distill(device="cuda"))
    assert device.resolve(Distill()) == device.Runtime(torch.device("cpu"), bf16=False)
    assert device.resolve(Distill(precision="bf16")).bf16


def record(step, **changes):
    values = {
        "step": step,
        "epoch": step // 10,
        "lr": 1e-3,
        "terms": {"task": 1.25, "fd": 0.1},
        "scales": {"student_scale": 14.285714},
        "grad_norm": 0.5,
        "images_per_second": 100.0,
        "data_wait": 0.25,
        "time": 1_700_000_000_000,
    }
    return Record(**{**values, **changes})


def write(folder, steps, keep_to=0):
    history = History(folder, ["task", "fd"], ["student_scale"], keep_to=keep_to)
    for step in steps:
        history.append(record(step))
    history.close()


def test_history_continues_where_the_checkpoint_stands(tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    write(whole, range(2, 21, 2))
    write(resumed, range(2, 17, 2))
    with (resumed / "history.csv").open("a") as file:
        file.write("18,1,0.0")  # killed in the middle of a line
    write(resumed, range(12, 21, 2), keep_to=10)
    for name in ("history.csv", "volatile/throughput.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    lines = (whole / "history.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,lr,loss,task,fd,student_scale,grad_norm"
    assert lines[1] == "2,0,0.001,1.35,1.25,0.1,14.285714,0.5"
    assert last_row(whole)["step"] == 20


def test_a_fresh_training_forgets_older_history(tmp_path):
    write(tmp_path, [2, 4])
    write(tmp_path, [2])
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 2


def test_history_gives_float32_back_exactly(tmp_path):
    value = torch.tensor(1 / 3).item()
    history = History(tmp_path, ["task"], [], keep_to=0)
    history.append(record(1, terms={"task": value}, scales={}))
    history.close()
    assert torch.tensor(last_row(tmp_path)["task"]).item() == value


def numbers(*values):
    return [torch.tensor(float(value)) for value in values]


def test_guard_gives_the_newest_step():
    guard = FiniteCheck(["task", "cross_scale", "grad_norm"], max_scale=100)
    guard.add(1, numbers(3, 2, 1))
    guard.add(2, numbers(4, -100, 1))
    assert guard.check(None) == {"task": 4, "cross_scale": -100, "grad_norm": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((math.nan, 1, 1, 1), "at step 8: 'task' is nan"),
        ((1, 1, 1, math.inf), "at step 8: the gradient norm is inf"),
        ((1, 101, 1, 1), "the learned 'cross_scale' is 101, beyond distill.max_scale = 100"),
        ((1, -101, 1, 1), "the learned 'cross_scale' is −101"),
        ((1, 1, math.inf, 1), "'student_scale' is inf"),
    ],
)
def test_guard_names_the_first_bad_step(tmp_path, values, message):
    guard = FiniteCheck(["task", "cross_scale", "student_scale", "grad_norm"], max_scale=100)
    guard.add(7, numbers(1, 1, 100.5, 1))  # the student's own scale has its own clamp
    guard.add(8, numbers(*values))
    guard.add(9, numbers(math.nan, math.nan, math.nan, math.nan))
    with pytest.raises(DivergedError, match=message) as caught:
        guard.check(tmp_path / "step-5")
    assert "last good checkpoint is kept: " in str(caught.value)


def test_a_clamped_scale_has_no_bound():
    guard = FiniteCheck(["cross_scale"], max_scale=None)
    guard.add(1, numbers(100.00001))
    guard.check(None)


def test_every_parameter_of_the_student_gets_its_own_name(model):
    loss = nn.Linear(1, 1)
    names = named_parameters(model, loss)
    assert len({id(p) for p in names.values()}) == len(names) == len([*model.parameters(), *loss.parameters()])


def test_guard_judges_what_all_ranks_agree_on():
    guard = FiniteCheck(["task"], max_scale=None, agree=lambda table: table * math.nan)
    guard.add(1, [torch.tensor(1.0)])
    with pytest.raises(DivergedError, match="step 1: 'task' is nan"):
        guard.check(None)
