"""The CPU's linear layer equals torch's, in value and gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliprd.models import linear as module
from cliprd.models.linear import few_sizes, linear, round_rows


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 256, 300])
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


def test_few_rows_are_not_given_to_onednn(monkeypatch):
    given_rows = []
    monkeypatch.setattr(module, "_product", lambda x, *_: given_rows.append(len(x)) or x)
    for rows in (1, 255, 256, 300):
        linear(torch.randn(rows, 4), torch.randn(4, 4), None)
    assert given_rows == [256, 300]


@given(st.integers(1, 10**6))
def test_rounded_rows_are_few_and_hardly_more(rows):
    rounded = round_rows(rows)
    assert 0 <= rounded - rows < max(32, rows / 16 + 1)
    assert round_rows(rounded) == rounded
    assert len({round_rows(n) for n in range(1, 2049)}) <= 64


@given(st.integers(0, 10**4), st.integers(1, 700))
def test_a_remainder_comes_in_powers_of_two(count, size):
    sizes = few_sizes(count, size)
    assert sum(sizes) == count
    assert sizes == sorted(sizes, reverse=True)
    assert all(n == size or n & (n - 1) == 0 for n in sizes)
