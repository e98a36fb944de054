"""Gradients in micro-batches against those of the whole batch at once; on several ranks: `test_distributed`."""

import copy
from contextlib import nullcontext

import pytest
import torch

from cliprd.data.augment import to_tensor
from cliprd.distill import device
from cliprd.distill.distributed import World
from cliprd.distill.forward import Forward, at_once, objective
from cliprd.distill.gradient_cache import GradientCache
from cliprd.distill.loader import Loader
from cliprd.distill.objective import build_loss
from cliprd.distill.optimizer import named_parameters
from cliprd.distill.order import Position
from cliprd.distill.train import train
from cliprd.errors import ParamsError
from cliprd.models.student import build_student, student_config, student_spec
from cliprd.params import Params
from tests.distill.rooms import STUDENT, make_params, open_rooms

pytestmark = pytest.mark.slow

DROPPING = {**STUDENT, "vision_cfg": {**STUDENT["vision_cfg"], "image_size": 32, "patch_dropout": 0.5}}


@pytest.fixture
def float64(monkeypatch):
    """What differs by more than 1e-8 then is no rounding."""
    monkeypatch.setattr("cliprd.distill.forward.to_tensor", lambda *arguments: to_tensor(*arguments).double())
    monkeypatch.setattr(Forward, "__init__", lambda self, *arguments: (INIT(self, *arguments), self.double())[0])


INIT = Forward.__init__


def make(rooms, student=STUDENT, **distill):
    """A Forward on fresh weights and its first batch."""
    params = make_params(rooms, **distill)
    params = params.model_copy(update={"student": Params.model_validate({"student": {"config": student}}).student})
    shards, cache = open_rooms(rooms, params)
    model = build_student(params.student, seed=0)
    loss = build_loss(params.distill, student["embed_dim"], cache.dim)
    spec = student_spec(model, params.student)
    batch = next(Loader(params, shards, cache, spec, student_config(params.student)).batches(Position(0, 0)))
    return Forward(model, loss, spec, device.resolve(params.distill), World(), cache.logit_scale), batch


def run(forward, call):
    """Terms and gradients of `call()`, from no gradients on."""
    forward.zero_grad(set_to_none=True)
    terms = call()
    parameters = named_parameters(forward.model, forward.loss)
    return terms, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def assert_near(one, other, tolerance):
    """Each tensor to `tolerance` of its own norm, or of 1e-3: some, as the keys' biases, are nothing but rounding."""
    assert one.keys() == other.keys()
    far = {name: ((one[name] - other[name]).norm() / one[name].norm().clamp(min=1e-3)).item() for name in one}
    assert {name: distance for name, distance in far.items() if distance > tolerance} == {}


METHODS = ["baseline", "clip_kd", "clip_rd-raw", "clip_rd-exp"]
SIZES = [1, 4, 9, 100]


def both(forward, batch, size):
    """Terms and gradients of the whole batch at once, and in micro-batches."""
    whole = run(forward, lambda: at_once(forward)(batch, len(batch.images)))
    return whole, run(forward, lambda: GradientCache(forward, World(), size)(batch, len(batch.images)))


def flat(gradients):
    return torch.cat([gradient.flatten().double() for gradient in gradients.values()])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_those_of_the_full_batch(rooms, method, size):
    """Towers, projections and learned scales."""
    (terms, whole), (cached_terms, cached) = both(*make(rooms, method=method, chunk_size=4), size)
    assert_near(terms, cached_terms, 1e-8)
    assert_near(whole, cached, 1e-8)
    assert any(name.startswith("student.text") for name in whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES[1:])
def test_gradients_in_float32_agree_up_to_rounding(rooms, monkeypatch, method, size):
    """To 1e-6 of the norm, or to twice what the whole batch's own gradient is off the exact one where that is more."""
    forward, batch = make(rooms, method=method, chunk_size=4)
    (terms, whole), (cached_terms, cached) = both(forward, batch, size)
    assert_near(terms, cached_terms, 1e-6)
    monkeypatch.setattr("cliprd.distill.forward.to_tensor", lambda *arguments: to_tensor(*arguments).double())
    exact = flat(run(forward.double(), lambda: at_once(forward)(batch, len(batch.images)))[1])
    rounding = (flat(whole) - exact).norm()
    assert rounding < 1e-5 * exact.norm()
    # each of the two is off by its own rounding, which differs between processors
    assert (flat(whole) - flat(cached)).norm() <= max(1e-6 * exact.norm(), 2 * rounding)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["baseline", "clip_rd-raw", "clip_rd-exp"])
def test_every_parameters_gradient_equals_that_of_the_full_batch(rooms, method):
    """Each parameter's on its own, the learned scales among them."""
    forward, batch = make(rooms, method=method)
    whole = run(forward, lambda: at_once(forward)(batch, len(batch.images)))[1]
    cached = run(forward, lambda: GradientCache(forward, World(), 4)(batch, len(batch.images)))[1]
    assert_near(whole, cached, 1e-8)
    assert method == "baseline" or {"loss.cross_scale", "loss.image_scale", "loss.text_scale"} <= cached.keys()


@pytest.mark.usefixtures("float64")
def test_dropout_repeats_its_masks_and_advances_the_generator_once(rooms):
    forward, batch = make(rooms, student=DROPPING)
    parts = list(zip(batch.images.split(4), batch.tokens.split(4), strict=True))

    def at_once_in_parts():
        """With the graphs of all parts at once: no mask is drawn twice."""
        image, text = (torch.cat(tower) for tower in zip(*(forward.embed(*part) for part in parts), strict=True))
        terms = forward.terms(image, text, batch, len(batch.images))
        objective(terms).backward()
        return terms

    found = []
    for call in (at_once_in_parts, lambda: GradientCache(forward, World(), 4)(batch, len(batch.images))):
        torch.manual_seed(3)
        found.append((*run(forward, call), torch.rand(3)))
    assert_near(found[0][0], found[1][0], 1e-8)
    assert_near(found[0][1], found[1][1], 1e-8)
    assert torch.equal(found[0][2], found[1][2])
    torch.manual_seed(4)
    _, others = run(forward, at_once_in_parts)
    assert not torch.allclose(others["student.visual.proj"], found[0][1]["student.visual.proj"], rtol=1e-2)


def test_bf16_towers_stay_within_their_rounding(rooms):
    """Against float32 the cached gradients are as near as those of the whole batch in bf16."""
    exact = run(forward := make(rooms)[0], lambda: at_once(forward)(batch := make(rooms)[1], len(batch.images)))[1]
    forward, batch = make(rooms, precision="bf16")
    whole = run(forward, lambda: at_once(forward)(batch, len(batch.images)))[1]
    cached = run(forward, lambda: GradientCache(forward, World(), 3)(batch, len(batch.images)))[1]

    def distance(found):
        return sum(((found[n] - exact[n]).norm() / exact[n].norm().clamp(min=1e-3)).item() for n in exact) / len(exact)

    assert 0 < distance(cached) < 1.25 * distance(whole)
    assert_near(whole, cached, 0.1)


@pytest.mark.usefixtures("float64")
def test_a_tower_that_no_term_trains_has_no_gradient(rooms):
    """vrd alone makes the images follow: the texts are a constant."""
    forward, batch = make(rooms, method="vrd", weights={"task": 0, "hrd": 0, "icl": 0, "fd": 0, "vrd_ce": 0})
    whole = run(forward, lambda: at_once(forward)(batch, len(batch.images)))[1]
    cached = run(forward, lambda: GradientCache(forward, World(), 4)(batch, len(batch.images)))[1]
    assert_near(whole, cached, 1e-8)
    assert not any(name.startswith("student.token") for name in cached)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norms_in_training_are_refused(rooms, training):
    forward, _ = make(rooms)
    forward.model = copy.deepcopy(forward.model)
    forward.model.add_module("norm", torch.nn.BatchNorm2d(3).train(training))
    wrong = pytest.raises(
        ParamsError, match=r"batch norms: .*micro_batch_size = 4 .*Set distill\.micro_batch_size to n"
    )
    with wrong if training else nullcontext():
        GradientCache(forward, World(), 4)


def test_a_training_can_be_resumed_in_micro_batches(rooms, tmp_path):
    """Stopped at once, gone on in micro-batches (as after a lack of memory), it ends as the undisturbed one."""

    class Stop(Exception):
        pass

    def stop(record):
        if record.step == 8:
            raise Stop

    def go(output, report=None, **options):
        params = make_params(rooms, checkpoint_every=6, **options)
        return train(params, *open_rooms(rooms, params), output, report)

    undisturbed = go(tmp_path / "whole").model.state_dict()
    with pytest.raises(Stop):
        go(tmp_path / "stopped", stop)
    seen = []
    resumed = go(tmp_path / "stopped", seen.append, micro_batch_size=3).model.state_dict()
    assert seen[0].step == 8
    for name, value in undisturbed.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-2, atol=2e-3, msg=lambda text, name=name: name + text)
