"""Slices' shares of the terms add up to the whole, and so do their gradients."""

import pytest
import torch
from torch.nn.functional import normalize

from cliprd.losses import DistillationLoss, method_weights

N, STUDENT, TEACHER = 11, 6, 8
SLICES = {"one": [slice(0, 11)], "two": [slice(0, 5), slice(5, 11)], "four": [slice(n, n + 3) for n in (0, 3, 6, 9)]}


def inputs(width):
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(N, w, generator=generator, dtype=torch.float64) for w in (width, width, TEACHER, TEACHER)]
    image, text = (x.requires_grad_() for x in draw[:2])
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    return image, text, scale, *(normalize(x, dim=1) for x in draw[2:]), 30.0


def found(method, mode, width, chunk_size, slices):
    torch.manual_seed(1)
    loss = DistillationLoss(width, TEACHER, weights=method_weights(method), scale_mode=mode, chunk_size=chunk_size)
    loss, given = loss.double(), inputs(width)
    shares = [loss(*given, rows=rows) for rows in slices]
    terms = {name: sum(share[name] for share in shares) for name in shares[0]}
    sum(terms.values()).backward()
    gradients = {name: p.grad for name, p in loss.named_parameters()}
    return terms, gradients | {str(k): x.grad for k, x in enumerate(given[:3])}


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("width", [STUDENT, TEACHER])
@pytest.mark.parametrize("mode", ["raw", "exp"])
@pytest.mark.parametrize("method", ["baseline", "clip_kd", "vrd", "xrd", "clip_rd"])
def test_shares_of_slices_add_up_to_the_loss(method, mode, width, chunk_size, slices):
    whole, shares = (found(method, mode, width, chunk_size, s) for s in ([None], SLICES[slices]))
    for one, other in zip(whole, shares, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-10, atol=1e-12, msg=lambda text, n=name: n + text)
