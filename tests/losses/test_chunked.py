"""The chunked path is the dense path in less memory: equal forward and backward, and nothing of N·N elements."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cliprd.losses import DistillationLoss, LossWeights, method_weights
from tests.losses.reference import ALL, terms

N, STUDENT, TEACHER = 23, 6, 9
SINGLE = [LossWeights(**{name: 1.5}) for name in ("task", "hrd", "icl", "fd", "vrd", "vrd_ce", "xrd")]


def batch(n=N, student=STUDENT, teacher=TEACHER, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = [torch.randn(n, student, generator=generator, dtype=dtype).requires_grad_() for _ in range(2)]
    t = [torch.randn(n, teacher, generator=generator, dtype=dtype) for _ in range(2)]
    t = [torch.nn.functional.normalize(e, dim=1) for e in t]
    return x[0], x[1], torch.tensor(11.0, dtype=dtype, requires_grad=True), t[0], t[1], 37.0


def evaluate(weights, chunk_size, *, scale_mode, project_task, student=STUDENT):
    torch.manual_seed(1)
    loss = DistillationLoss(
        student,
        TEACHER,
        weights=weights,
        scale_mode=scale_mode,
        project_task=project_task,
        chunk_size=chunk_size,
    ).double()
    inputs = batch(student=student)
    found = loss(*inputs)
    sum(found.values()).backward()
    gradients = {name: parameter.grad for name, parameter in loss.named_parameters()}
    gradients |= {f"input{k}": inputs[k].grad for k in range(3)}
    return found, gradients


@pytest.mark.parametrize("chunk_size", [1, 7, 8, 23, 64])
@pytest.mark.parametrize("scale_mode", ["raw", "exp"])
@pytest.mark.parametrize("project_task", [False, True])
def test_all_terms_equal_dense(chunk_size, scale_mode, project_task):
    options = {"scale_mode": scale_mode, "project_task": project_task}
    dense, dense_gradients = evaluate(method_weights("clip_rd"), None, **options)
    chunked, chunked_gradients = evaluate(method_weights("clip_rd"), chunk_size, **options)
    assert list(dense) == list(chunked) == list(ALL)
    torch.testing.assert_close(chunked, dense, rtol=0, atol=1e-10)
    torch.testing.assert_close(chunked_gradients, dense_gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("weights", SINGLE, ids=lambda w: next(k for k, v in vars(w).items() if v))
@pytest.mark.parametrize("student", [STUDENT, TEACHER])
def test_each_term_alone_equals_dense(weights, student):
    options = {"scale_mode": "raw", "project_task": False, "student": student}
    dense, dense_gradients = evaluate(weights, None, **options)
    chunked, chunked_gradients = evaluate(weights, 8, **options)
    torch.testing.assert_close(chunked, dense, rtol=0, atol=1e-10)
    torch.testing.assert_close(chunked_gradients, dense_gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 8])
@pytest.mark.parametrize("project_task", [False, True])
def test_equals_the_papers_formulas(chunk_size, project_task):
    """Both paths against the naive reference: values and gradients, with projections and unequal scales."""
    torch.manual_seed(2)
    loss = DistillationLoss(
        STUDENT, TEACHER, weights=method_weights("clip_rd"), project_task=project_task, chunk_size=chunk_size
    ).double()
    with torch.no_grad():
        for scale, value in ((loss.cross_scale, 2.9), (loss.image_scale, 14.0), (loss.text_scale, 3.3)):
            scale.fill_(value)
    inputs = batch()
    found = loss(*inputs)
    naive = terms(
        *inputs,
        cross=loss.cross_scale,
        image=loss.image_scale,
        text=loss.text_scale,
        projections=tuple((p.weight, p.bias) for p in (loss.image_projection, loss.text_projection)),
        project_task=project_task,
    )
    naive["fd"] = 2000 * naive["fd"]
    torch.testing.assert_close(found, naive, rtol=0, atol=1e-10)
    leaves = [*inputs[:3], *loss.parameters()]
    ours = torch.autograd.grad(sum(found.values()), leaves)
    theirs = torch.autograd.grad(sum(naive.values()), leaves)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_large_logits_stay_finite_and_equal_in_float32():
    inputs = batch(n=64, student=TEACHER, dtype=torch.float32)
    results = []
    for chunk_size in (None, 16):
        loss = DistillationLoss(TEACHER, TEACHER, weights=method_weights("clip_rd"), chunk_size=chunk_size)
        with torch.no_grad():
            for scale in loss.parameters():
                scale.fill_(300.0)
        results.append(loss(*inputs[:2], torch.tensor(100.0), *inputs[3:5], 100.0))
    assert all(torch.isfinite(value) for value in results[1].values())
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-4)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation, forward or backward, gives back."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def largest(n, chunk_size, dim=8):
    inputs = batch(n=n, student=dim, teacher=dim + 1, dtype=torch.float32)
    loss = DistillationLoss(dim, dim + 1, weights=method_weights("clip_rd"), chunk_size=chunk_size)
    with Largest() as mode:
        sum(loss(*inputs).values()).backward()
    return mode.elements


def test_memory_grows_with_n_times_chunk():
    """No tensor of N·N elements forward or backward, and the largest grows linearly with N."""
    assert largest(256, None) == 256 * 256  # the meter sees what it should
    assert largest(256, 16) == 256 * 16
    assert largest(512, 16) == 512 * 16


def test_memory_between_forward_and_backward_is_linear():
    n, chunk, saved = 512, 16, {}

    def keep(tensor):
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    inputs = batch(n=n, student=8, teacher=9, dtype=torch.float32)
    loss = DistillationLoss(8, 9, weights=method_weights("clip_rd"), chunk_size=chunk)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sum(loss(*inputs).values())
    assert sum(saved.values()) < 150 * n  # a few embeddings of width 9 and normalisers; one matrix would be 512·n
