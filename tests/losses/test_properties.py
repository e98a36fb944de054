"""What must hold for any batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from cliprd.losses import DistillationLoss, LossWeights, method_weights

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
KL = LossWeights(hrd=1, vrd=1, xrd=1)
chunks = st.sampled_from([None, 1, 3, 50])


@st.composite
def batches(draw, student_dim=5, teacher_dim=5):
    n = draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = [torch.randn(n, student_dim, generator=generator, dtype=torch.float64) for _ in range(2)]
    t = [normalize(torch.randn(n, teacher_dim, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]
    scales = [draw(st.floats(0.1, 100)) for _ in range(2)]
    return x[0], x[1], scales[0], t[0], t[1], scales[1]


def make(weights, chunk_size=None, student_dim=5, teacher_dim=5, scale_mode="raw"):
    torch.manual_seed(0)
    options = {"weights": weights, "chunk_size": chunk_size, "scale_mode": scale_mode}
    return DistillationLoss(student_dim, teacher_dim, **options).double()


@SETTINGS
@given(batches(), chunks)
def test_divergences_are_never_negative(batch, chunk_size):
    assert all(value >= -1e-12 for value in make(KL, chunk_size)(*batch).values())


@SETTINGS
@given(batches(), chunks)
def test_divergences_and_distance_vanish_when_student_is_teacher(batch, chunk_size):
    _, _, _, image, text, scale = batch
    terms = make(LossWeights(hrd=1, fd=1), chunk_size)(image, text, scale, image, text, scale)
    assert all(abs(value) < 1e-12 for value in terms.values())
    # vrd and xrd compare the two modalities: they vanish where image and text agree as well
    terms = make(LossWeights(vrd=1, xrd=1), chunk_size)(image, image, scale, image, image, scale)
    assert all(abs(value) < 1e-12 for value in terms.values())


@SETTINGS
@given(batches(teacher_dim=7), st.randoms(use_true_random=False), chunks)
def test_the_order_of_the_batch_does_not_matter(batch, random, chunk_size):
    order = list(range(len(batch[0])))
    random.shuffle(order)
    loss = make(method_weights("clip_rd"), chunk_size, teacher_dim=7)
    shuffled = [part[order] if isinstance(part, torch.Tensor) else part for part in batch]
    torch.testing.assert_close(loss(*shuffled), loss(*batch), rtol=1e-12, atol=1e-12)


@SETTINGS
@given(batches(), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_length_of_student_embeddings_does_not_matter(batch, stretch_image, stretch_text):
    loss = make(method_weights("clip_rd"))
    stretched = (batch[0] * stretch_image, batch[1] * stretch_text, *batch[2:])
    torch.testing.assert_close(loss(*stretched), loss(*batch), rtol=1e-9, atol=1e-9)


@SETTINGS
@given(batches(), st.sampled_from(["raw", "exp"]))
def test_scale_modes_agree_where_the_multipliers_do(batch, mode):
    raw, exp = make(method_weights("clip_rd")), make(method_weights("clip_rd"), scale_mode="exp")
    with torch.no_grad():
        for name in ("cross_scale", "image_scale", "text_scale"):
            getattr(raw, name).copy_(getattr(exp, name).exp())
    torch.testing.assert_close(raw(*batch), exp(*batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_autograd_agrees_with_finite_differences(chunk_size):
    generator = torch.Generator().manual_seed(3)
    x = [torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    t = [normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    # not vrd and xrd: their target is detached, which finite differences of the same function cannot know
    loss = make(LossWeights(task=1, hrd=1, icl=1, fd=3, vrd_ce=1), chunk_size, 4, 4)
    assert torch.autograd.gradcheck(lambda a, b, s: tuple(loss(a, b, s, *t, 20.0).values()), (*x, scale))
