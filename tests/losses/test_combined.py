"""The public face: which terms, which parameters, what is refused, in which precision."""

import inspect
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import cliprd.losses
from cliprd.losses import DistillationLoss, LossWeights, method_weights
from tests.losses.reference import ALL

METHODS = {
    "baseline": {"task"},
    "clip_kd": {"task", "hrd", "icl", "fd"},
    "vrd": {"task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text"},
    "xrd": {"task", "hrd", "icl", "fd", "xrd"},
    "clip_rd": set(ALL),
}


def batch(n=8, student=5, teacher=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(n, student, generator=generator, dtype=dtype) for _ in range(2)]
    t = [normalize(torch.randn(n, teacher, generator=generator, dtype=dtype), dim=1) for _ in range(2)]
    return [x[0], x[1], torch.tensor(14.0, dtype=dtype), t[0], t[1], torch.tensor(80.0, dtype=dtype)]


def test_signatures_are_frozen():
    names = ["DistillationLoss", "LossWeights", "Term", "check_term_name", "inputs_of", "method_weights"]
    assert sorted(cliprd.losses.__all__) == names
    assert str(inspect.signature(DistillationLoss)) == (
        "(student_dim: 'int', teacher_dim: 'int', *, weights: 'LossWeights', "
        "scale_mode: \"Literal['raw', 'exp'] | None\" = None, project_task: 'bool' = False, "
        "chunk_size: 'int | None' = None, terms: 'Mapping[str, Term] | None' = None) -> 'None'"
    )
    assert list(inspect.signature(DistillationLoss.forward).parameters) == [
        "self",
        "student_image",
        "student_text",
        "student_scale",
        "teacher_image",
        "teacher_text",
        "teacher_scale",
        "rows",
    ]
    assert str(inspect.signature(LossWeights)) == (
        "(*, task: 'float' = 0.0, hrd: 'float' = 0.0, icl: 'float' = 0.0, fd: 'float' = 0.0, vrd: 'float' = 0.0, "
        "vrd_ce: 'float' = 0.0, xrd: 'float' = 0.0, extra: 'Mapping[str, float]' = <factory>, "
        "scale_mode: \"Literal['raw', 'exp'] | None\" = None) -> None"
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_each_method_has_its_terms(method, chunk_size):
    terms = DistillationLoss(5, 5, weights=method_weights(method), chunk_size=chunk_size)(*batch())
    assert set(terms) == METHODS[method]
    assert all(value.ndim == 0 and value.dtype == torch.float32 for value in terms.values())
    assert list(terms) == [name for name in ALL if name in terms]
    assert DistillationLoss(5, 5, weights=method_weights(method)).term_names == tuple(terms)


def test_official_weights():
    assert method_weights("clip_rd") == LossWeights(task=1, hrd=1, icl=1, fd=2000, vrd=1, vrd_ce=1, xrd=1)
    with pytest.raises(ValueError, match="'clip' is no method: allowed are baseline, clip_kd"):
        method_weights("clip")


def test_terms_are_weighted():
    once = DistillationLoss(5, 5, weights=LossWeights(task=1, hrd=1, icl=1, fd=1, vrd=1, vrd_ce=1, xrd=1))(*batch())
    factors = {"task": 2, "hrd": 3, "icl": 4, "fd": 5, "vrd": 6, "vrd_ce_image": 7, "vrd_ce_text": 7, "xrd": 8}
    weights = LossWeights(**{k: v for k, v in factors.items() if "ce_" not in k}, vrd_ce=7)
    weighted = DistillationLoss(5, 5, weights=weights)(*batch())
    for name, factor in factors.items():
        torch.testing.assert_close(weighted[name], factor * once[name])


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, True, "1", None])
def test_impossible_weights_are_refused(value):
    with pytest.raises(ValueError, match="weight 'fd'"):
        LossWeights(fd=value)


def test_weights_are_frozen():
    with pytest.raises(AttributeError):
        LossWeights().task = 1.0


def test_a_term_left_out_does_not_touch_its_inputs():
    """0·NaN is NaN: so a NaN that only left-out terms would read must not reach the sum or any gradient."""
    inputs = batch()
    inputs[3] = torch.full_like(inputs[3], math.nan)
    inputs[5] = math.nan
    inputs[0].requires_grad_()
    terms = DistillationLoss(5, 5, weights=LossWeights(task=1))(*inputs)
    sum(terms.values()).backward()
    assert set(terms) == {"task"}
    assert torch.isfinite(terms["task"])
    assert torch.isfinite(inputs[0].grad).all()
    inputs[2] = math.nan  # the student's scale: only task and hrd read it
    inputs[3] = batch()[3]
    assert torch.isfinite(sum(DistillationLoss(5, 5, weights=LossWeights(icl=1, vrd=1, fd=1, xrd=1))(*inputs).values()))


def names(loss):
    return {name for name, _ in loss.named_parameters()}


PROJECTIONS = {f"{tower}_projection.{part}" for tower in ("image", "text") for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("weights", "project_task", "expected"),
    [
        (LossWeights(task=1, hrd=1), False, set()),
        (LossWeights(task=1), True, PROJECTIONS),
        (LossWeights(fd=1), False, PROJECTIONS),
        (LossWeights(icl=1), False, {"cross_scale"} | PROJECTIONS),
        (LossWeights(xrd=1), False, {"cross_scale"} | PROJECTIONS),
        (LossWeights(vrd=1), False, {"image_scale"} | PROJECTIONS),
        (LossWeights(vrd_ce=1), False, {"image_scale", "text_scale"} | PROJECTIONS),
    ],
)
def test_only_parameters_that_train_exist(weights, project_task, expected):
    """Every parameter gets a gradient, and those of terms left out do not exist."""
    loss = DistillationLoss(5, 7, weights=weights, project_task=project_task)
    assert names(loss) == expected
    inputs = batch(teacher=7)
    inputs[0].requires_grad_()
    sum(loss(*inputs).values()).backward()
    for name, parameter in loss.named_parameters():
        # vrd alone: the text side is a fixed target
        assert (parameter.grad is None) == (weights == LossWeights(vrd=1) and name.startswith("text_projection")), name
    same = DistillationLoss(5, 5, weights=weights, project_task=project_task)
    assert same.image_projection is None
    assert same.text_projection is None


def test_the_text_scale_of_a_target_is_a_buffer():
    loss = DistillationLoss(5, 5, weights=LossWeights(vrd=1))
    assert not isinstance(loss.text_scale, nn.Parameter)
    assert "text_scale" in loss.state_dict()
    assert loss.cross_scale is None


def test_scales_start_as_the_official_ones():
    for mode, multiplier in (("raw", math.log(1 / 0.07)), ("exp", 1 / 0.07)):
        loss = DistillationLoss(5, 5, weights=method_weights("clip_rd"), scale_mode=mode)
        assert loss.cross_scale.item() == loss.image_scale.item() == loss.text_scale.item()
        assert loss.cross_scale.item() == pytest.approx(math.log(1 / 0.07), rel=1e-6)
        assert loss.multipliers()["cross_scale"].item() == pytest.approx(multiplier, rel=1e-6)


def test_exp_scales_are_clamped_at_100_and_keep_a_gradient():
    loss = DistillationLoss(5, 5, weights=LossWeights(icl=1), scale_mode="exp")
    with torch.no_grad():
        loss.cross_scale.fill_(50.0)
    assert loss.multipliers()["cross_scale"].item() == pytest.approx(100, rel=1e-6)
    loss.clamp_scales()
    assert loss.cross_scale.item() == pytest.approx(math.log(100), rel=1e-6)
    sum(loss(*batch()).values()).backward()  # random embeddings: a smaller scale would be better
    assert loss.cross_scale.grad > 0


def test_raw_is_not_clamped():
    loss = DistillationLoss(5, 5, weights=LossWeights(icl=1))
    with torch.no_grad():
        loss.cross_scale.fill_(500.0)
    loss.clamp_scales()
    assert loss.multipliers()["cross_scale"].item() == 500


@pytest.mark.parametrize("project_task", [False, True])
def test_project_task_selects_the_embeddings_of_task(project_task):
    inputs = batch(teacher=7)
    loss = DistillationLoss(5, 7, weights=LossWeights(task=1, fd=1), project_task=project_task)
    before = loss(*inputs)
    with torch.no_grad():
        loss.image_projection.weight.normal_()
    after = loss(*inputs)
    assert (before["task"] != after["task"]) == project_task
    assert before["fd"] != after["fd"]


def test_no_gradient_reaches_the_teacher():
    for chunk_size in (None, 3):
        inputs = batch()
        inputs[0].requires_grad_()
        inputs[3].requires_grad_()
        inputs[4].requires_grad_()
        sum(
            DistillationLoss(5, 5, weights=method_weights("clip_rd"), chunk_size=chunk_size)(*inputs).values()
        ).backward()
        assert inputs[3].grad is None
        assert inputs[4].grad is None


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_autocast_and_half_inputs_are_computed_in_float32(chunk_size):
    loss = DistillationLoss(5, 7, weights=method_weights("clip_rd"), chunk_size=chunk_size)
    inputs = batch(teacher=7)
    halves = [part.bfloat16() if part.ndim else part for part in inputs]
    exact = [part.float() for part in halves]
    expected = loss(*exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*halves)
    assert all(value.dtype == torch.float32 for value in found.values())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_half_precision_gradients_come_back_in_their_own_type():
    inputs = batch()
    inputs[0] = inputs[0].bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(DistillationLoss(5, 5, weights=method_weights("clip_rd"), chunk_size=3)(*inputs).values())
    loss.backward()
    assert inputs[0].grad.dtype == torch.bfloat16
    assert torch.isfinite(inputs[0].grad).all()


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, torch.zeros(8, 6), ValueError, r"student_image has shape \[8, 6\]: \[N, 5\] is needed"),
        (1, torch.zeros(7, 5), ValueError, "student_text has 7 rows, student_image 8"),
        (3, torch.zeros(8, 5), ValueError, r"teacher_image has shape \[8, 5\]: \[N, 7\] is needed"),
        (4, torch.zeros(9, 7), ValueError, "teacher_text has 9 rows, student_image 8"),
        (4, torch.zeros(8), ValueError, r"teacher_text has shape \[8\]"),
        (3, torch.zeros(8, 7, dtype=torch.int64), TypeError, "teacher_image is torch.int64: a floating-point"),
        (0, [[1.0]], TypeError, "student_image is list"),
    ],
)
def test_wrong_inputs_are_named(position, value, error, message):
    inputs = batch(teacher=7)
    inputs[position] = value
    with pytest.raises(error, match=message):
        DistillationLoss(5, 7, weights=method_weights("clip_rd"))(*inputs)


def test_an_empty_batch_is_refused():
    inputs = [part[:0] if part.ndim else part for part in batch()]
    with pytest.raises(ValueError, match="N > 0"):
        DistillationLoss(5, 5, weights=LossWeights(task=1))(*inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_dim": 0}, "widths must be positive"),
        ({"chunk_size": 0}, "chunk_size 0"),
        ({"scale_mode": "log"}, "scale_mode 'log'"),
        ({"weights": LossWeights()}, "all weights are 0"),
    ],
)
def test_wrong_construction_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**{"student_dim": 5, "teacher_dim": 5, "weights": LossWeights(task=1), **options})


def test_equal_captions_are_each_others_negatives():
    """As in the official code, the diagonal alone is the target, whatever repeats in the batch."""
    inputs = batch()
    repeated = [part.repeat(2, 1) if part.ndim else part for part in inputs]
    loss = DistillationLoss(5, 5, weights=LossWeights(task=1))
    torch.testing.assert_close(loss(*repeated)["task"], loss(*inputs)["task"] + math.log(2))
