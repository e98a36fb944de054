"""The CPU's linear layer equals torch's, in value and gradient."""

import pytest
import torch

from cliprd.models.linear import linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchs(bias, rows, dtype):
    torch.manual_seed(0)
    x = torch.randn(rows, 24, dtype=dtype, requires_grad=True)
    weight = torch.randn(40, 24, dtype=dtype, requires_grad=True)
    leaves = [x, weight, *([torch.randn(40, dtype=dtype, requires_grad=True)] if bias else [])]
    found = []
    for function in (torch.nn.functional.linear, linear):
        out = function(x, weight, leaves[2] if bias else None)
        found.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_only_what_is_wanted_is_differentiated():
    x, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    linear(x, weight, None).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(5, 4))


def test_autocast_keeps_its_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(3, 4), torch.randn(5, 4), None).dtype == torch.bfloat16
