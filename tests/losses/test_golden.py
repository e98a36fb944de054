"""Losses and gradients of the official code, run once in float64, hold to 1e-9: whole and in chunks."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cliprd.losses import DistillationLoss, method_weights

GOLDEN = Path(__file__).parent / "golden"
CASES = {"equal_dims": False, "projected": True}
LEARNED = {"cross_logit_scale": "cross_scale", "image_logit_scale": "image_scale", "text_logit_scale": "text_scale"}


def run(name, chunk_size):
    golden = load_file(GOLDEN / f"{name}.safetensors")
    student_dim, teacher_dim = golden["student_image"].shape[1], golden["teacher_image"].shape[1]
    loss = DistillationLoss(
        student_dim,
        teacher_dim,
        weights=method_weights("clip_rd"),
        scale_mode="raw",
        project_task=CASES[name],
        chunk_size=chunk_size,
    ).double()
    state = {ours: golden[theirs] for theirs, ours in LEARNED.items()}
    if CASES[name]:
        for theirs, ours in (("visual_proj", "image_projection"), ("text_proj", "text_projection")):
            state |= {f"{ours}.{part}": golden[f"{theirs}.{part}"] for part in ("weight", "bias")}
    loss.load_state_dict(state, strict=True)
    inputs = {k: golden[k].requires_grad_() for k in ("student_image", "student_text", "student_logit_scale")}
    terms = loss(*inputs.values(), golden["teacher_image"], golden["teacher_text"], golden["teacher_logit_scale"])
    leaves = {**inputs, **{theirs: getattr(loss, ours) for theirs, ours in LEARNED.items()}}
    return golden, terms, leaves


@pytest.mark.parametrize("chunk_size", [None, 1, 5, 16, 100])
@pytest.mark.parametrize("name", CASES)
def test_losses(name, chunk_size):
    golden, terms, _ = run(name, chunk_size)
    assert set(terms) == {key.removeprefix("loss.") for key in golden if key.startswith("loss.")} - {"total"}
    for term, value in terms.items():
        assert abs(value - golden[f"loss.{term}"]) < 1e-9, term
    assert abs(sum(terms.values()) - golden["loss.total"]) < 1e-9


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, chunk_size):
    golden, terms, leaves = run(name, chunk_size)
    compared = 0
    for term, value in terms.items():
        found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
        for leaf, gradient in zip(leaves, found, strict=True):
            expected = golden.get(f"grad.{term}.{leaf}")
            if expected is None:  # the official code gives no gradient here: neither may we
                assert gradient is None or not gradient.any(), (term, leaf)
                continue
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9, msg=f"{term} {leaf}")
            compared += 1
    assert compared == sum(key.startswith("grad.") for key in golden) >= 20
