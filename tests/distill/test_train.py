import csv
import dataclasses
import gc
import math

import pytest
import torch
from torch.nn.functional import normalize

from cliprd.data.augment import to_tensor
from cliprd.data.shards import ShardSet
from cliprd.distill.checkpoint import Checkpoints
from cliprd.distill.loader import Loader
from cliprd.distill.order import Position
from cliprd.distill.train import describe, train
from cliprd.errors import DivergedError, InputError, ParamsError
from cliprd.losses import DistillationLoss, method_weights
from cliprd.models.student import (
    build_student,
    encode_image_features,
    encode_text_features,
    student_config,
    student_spec,
)
from tests.distill.rooms import SAMPLES, make_params, open_rooms

STEPS = 3 * -(-SAMPLES // 10)
TERMS = {
    "baseline": ["task"],
    "clip_kd": ["task", "hrd", "icl", "fd"],
    "vrd": ["task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text"],
    "xrd": ["task", "hrd", "icl", "fd", "xrd"],
    "clip_rd": ["task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text", "xrd"],
}


def run(rooms, output, report=None, **distill):
    params = make_params(rooms, **distill)
    return train(params, *open_rooms(rooms, params), output, report)


def weights(trained):
    return {**trained.model.state_dict(), **{f"loss.{k}": v for k, v in trained.loss.state_dict().items()}}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(rooms, tmp_path_factory):
    """An undisturbed training of clip_rd: (result, folder, records)."""
    folder, records = tmp_path_factory.mktemp("whole"), []
    return run(rooms, folder, records.append), folder, records


def test_records_have_all_terms_and_scales(whole):
    trained, _, records = whole
    assert (trained.steps, trained.samples) == (STEPS, 3 * SAMPLES)
    assert [r.step for r in records] == [*range(2, STEPS + 1, 2), STEPS]
    assert [r.epoch for r in records] == [(r.step - 1) // 5 for r in records]
    for record in records:
        assert list(record.terms) == TERMS["clip_rd"]
        assert list(record.scales) == ["student_scale", "cross_scale", "image_scale", "text_scale"]
        assert all(math.isfinite(v) for v in [*record.terms.values(), *record.scales.values(), record.grad_norm])
        assert record.images_per_second > 0
        assert 0 <= record.data_wait <= 1
        assert all(f"{name} " in describe(record) for name in record.terms)
        assert all(word in describe(record) for word in ("student×", "|g|", "img/s", "wait"))
    assert records[0].lr == pytest.approx(1e-3)
    assert records[-1].lr < 1e-4


def test_history_is_the_records(whole):
    _, folder, records = whole
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *["step", "epoch", "lr", "loss", *TERMS["clip_rd"]],
        *["student_scale", "cross_scale", "image_scale", "text_scale", "grad_norm"],
    ]
    for row, record in zip(rows, records, strict=True):
        assert int(row["step"]) == record.step
        assert float(row["loss"]) == pytest.approx(sum(record.terms.values()), rel=1e-6)
        assert float(row["grad_norm"]) == pytest.approx(record.grad_norm, rel=1e-8)
    assert len((folder / "volatile/throughput.csv").read_text().splitlines()) == len(rows) + 1


def test_the_same_again_bit_for_bit_whatever_the_workers_and_logging(rooms, whole, tmp_path):
    again = run(rooms, tmp_path, workers=3, log_every=5, checkpoint_every=100)
    assert_equal(weights(again), weights(whole[0]))


def test_another_seed_is_another_training(rooms, whole, tmp_path):
    other = run(rooms, tmp_path, seed=1)
    assert not torch.equal(other.model.visual.proj, whole[0].model.visual.proj)


def test_two_threads_bit_for_bit(rooms, tmp_path):
    torch.set_num_threads(2)
    try:
        assert_equal(weights(run(rooms, tmp_path / "one", epochs=1)), weights(run(rooms, tmp_path / "two", epochs=1)))
    finally:
        torch.set_num_threads(1)


def test_resumed_in_the_middle_of_an_epoch_bit_for_bit(rooms, whole, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record.step == 8:  # past the checkpoint of step 6, in the second epoch
            raise Stop

    with pytest.raises(Stop):
        run(rooms, tmp_path, stop, checkpoint_every=6)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 5
    seen = []
    resumed = run(rooms, tmp_path, seen.append, checkpoint_every=6)
    assert [r.step for r in seen] == [8, 10, 12, 14, 15]
    assert_equal(weights(resumed), weights(whole[0]))
    assert (tmp_path / "history.csv").read_bytes() == (whole[1] / "history.csv").read_bytes()


def test_a_finished_training_is_not_trained_again(rooms, whole, tmp_path):
    first, records = run(rooms, tmp_path), []
    again = run(rooms, tmp_path, records.append)
    assert records == []
    assert_equal(weights(again), weights(first))


def test_a_checkpoint_of_other_parameters_is_refused(rooms, tmp_path):
    run(rooms, tmp_path, epochs=1)
    with pytest.raises(InputError, match="other parameters"):
        run(rooms, tmp_path, epochs=2)


def test_objects_are_frozen_for_the_collector_during_training(rooms, tmp_path):
    counts = []
    run(rooms, tmp_path, lambda record: counts.append(gc.get_freeze_count()), epochs=1)
    assert min(counts) > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("method", [m + s for m in TERMS for s in ("-raw", "-exp")])
def test_every_method_trains(rooms, tmp_path, method):
    """On one device, in both scale modes, widths unequal: every parameter moves and the objective falls."""
    records = []
    trained = run(rooms, tmp_path, records.append, method=method, epochs=8, log_every=1)
    name, mode = method.split("-")
    assert list(records[0].terms) == TERMS[name]
    losses = [sum(r.terms.values()) for r in records]
    assert sum(losses[-4:]) < sum(losses[:4])
    params = make_params(rooms, method=method)
    start = build_student(params.student, seed=0).state_dict()
    same = [n for n, v in trained.model.state_dict().items() if torch.equal(v, start[n]) and n != "attn_mask"]
    assert same == []
    for scale in (n for n, _ in trained.loss.named_parameters() if n.endswith("scale")):
        moved = trained.loss.get_parameter(scale).item()
        assert moved != pytest.approx(math.log(1 / 0.07), rel=1e-6), scale
        multiplier = math.exp(moved) if mode == "exp" else moved
        assert records[-1].scales[scale] == pytest.approx(multiplier, rel=1e-5)


def test_chunks_train_the_same(rooms, whole, tmp_path):
    chunked = run(rooms, tmp_path, chunk_size=3)
    for name, value in weights(whole[0]).items():
        torch.testing.assert_close(weights(chunked)[name], value, rtol=1e-2, atol=2e-3)


def test_the_first_step_is_the_loss_of_the_first_batch(rooms, tmp_path):
    """Not only does it train, it trains what it says: recomputed here from model, batch and loss by hand."""
    records = []
    run(rooms, tmp_path, records.append, log_every=1, epochs=1)
    params = make_params(rooms)
    shards, cache = open_rooms(rooms, params)
    model = build_student(params.student, seed=0)
    spec, config = student_spec(model, params.student), student_config(params.student)
    batch = next(Loader(params, shards, cache, spec, config).batches(Position(0, 0)))
    task = DistillationLoss(16, 24, weights=method_weights("baseline"))
    with torch.no_grad():
        images = encode_image_features(model, to_tensor(batch.images, spec))
        texts = encode_text_features(model, batch.tokens)
        teacher = [normalize(t.float(), dim=1) for t in (batch.teacher_image, batch.teacher_text)]
        expected = task(images, texts, model.logit_scale.exp(), *teacher, cache.logit_scale)["task"].item()
    assert records[0].terms["task"] == pytest.approx(expected, rel=1e-5)
    assert records[0].scales["student_scale"] == pytest.approx(1 / 0.07, rel=2e-3)


def test_clipping_bounds_the_step_and_leaves_the_record_true(rooms, tmp_path):
    free, tight = [], []
    run(rooms, tmp_path / "free", free.append, clip_grad_norm=None, log_every=1, epochs=1)
    run(rooms, tmp_path / "tight", tight.append, clip_grad_norm=1e-3, log_every=1, epochs=1)
    assert free[0].grad_norm == tight[0].grad_norm > 1e-3
    assert free[-1].terms != tight[-1].terms


def test_bf16_towers_stay_near_fp32(rooms, tmp_path):
    exact, half = [], []
    run(rooms, tmp_path / "fp32", exact.append, log_every=1, epochs=1)
    run(rooms, tmp_path / "bf16", half.append, log_every=1, epochs=1, precision="bf16")
    assert half[0].terms != exact[0].terms
    for name, value in exact[0].terms.items():
        assert half[0].terms[name] == pytest.approx(value, rel=0.05)


def test_the_students_scale_is_clamped(rooms, tmp_path):
    records = []
    run(rooms, tmp_path, records.append, method="baseline", lr=3.0, epochs=4, log_every=1, clip_grad_norm=None)
    scales = [r.scales["student_scale"] for r in records]
    assert all(1 <= s <= 100.001 for s in scales)
    assert min(scales) == 1 or max(scales) == pytest.approx(100)


def test_divergence_ends_with_a_clear_error_and_a_good_checkpoint(rooms, tmp_path):
    with pytest.raises(DivergedError, match=r"diverged at step \d+: .*step-\d+\.safetensors") as caught:
        run(rooms, tmp_path, method="baseline", lr=1e30, warmup_steps=0, checkpoint_every=1, clip_grad_norm=None)
    assert caught.value.exit_code == 4
    last = Checkpoints(tmp_path, "").last()
    assert str(last) in caught.value.problem
    step = int(last.stem.partition("-")[2])
    assert step < int(caught.value.problem.partition("at step ")[2].partition(":")[0])
    again = make_params(rooms, method="baseline", lr=1e30, warmup_steps=0, checkpoint_every=1, clip_grad_norm=None)
    with pytest.raises(DivergedError):  # it loads, and ends in the same way
        train(again, *open_rooms(rooms, again), tmp_path)


def test_a_scale_beyond_its_maximum_ends_the_training_each_time(rooms, tmp_path):
    """Raw scales have no clamp: with a large rate a bound is soon crossed, here after a step that stays within it."""
    options = {"max_scale": 4.0, "lr": 5.0, "warmup_steps": 4, "checkpoint_every": 1, "epochs": 8}
    for _ in range(2):  # the second time from the checkpoint that the first has left, with the same end
        with pytest.raises(DivergedError, match=r"beyond distill\.max_scale = 4"):
            run(rooms, tmp_path, **options)


def test_exp_scales_have_no_bound_but_their_clamp(rooms, tmp_path):
    run(rooms, tmp_path, method="clip_rd-exp", max_scale=2.7, epochs=1)


def test_too_few_samples_are_refused(rooms, tmp_path):
    """A set smaller than a batch is one batch; fewer than two samples are refused before anything is trained."""
    assert run(rooms, tmp_path, batch_size=64).steps == 3
    params = make_params(rooms)
    shards, cache = open_rooms(rooms, params)
    one = ShardSet(shards.folder, shards.fingerprint, (dataclasses.replace(shards.shards[0], samples=1),))
    with pytest.raises(ParamsError, match="holds 1 sample: a contrastive loss needs two"):
        train(params, one, cache, tmp_path / "one")
