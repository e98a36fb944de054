"""The statistics of `similarity.dense_statistics` with only `chunk_size` rows of each matrix in memory at a time.

The forward pass iterates over blocks of rows: a row's normaliser and gap are complete within its block; a column's are
accumulated as a running maximum and sums rescaled to it (streaming log-sum-exp). The backward pass recomputes each
block, and since

    ∂ logsumexp_row_i / ∂M_ij = softmax_row(M)_ij        ∂ gap_row_i / ∂S_ij = −softmax_row(T)_ij

(columns likewise), its gradient needs only the saved normalisers. So no N·N tensor is ever stored, at the cost of one
more matrix product.

Shape legend: N samples, C rows of a block, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cliprd.losses.similarity import ExpectedLogitGap, Normalisers, PairStatistics, Similarity


def chunked_statistics(
    a: Similarity,
    b: Similarity | None = None,
    *,
    chunk_size: int,
    a_follows_b: bool = False,
    b_follows_a: bool = False,
) -> PairStatistics:
    """`PairStatistics` in blocks of `chunk_size` rows: memory grows as N·chunk_size. Differentiable once."""
    matrices = [a] if b is None else [a, b]
    follows = ((0, 1),) * a_follows_b + ((1, 0),) * b_follows_a  # (student, target)
    tensors = (tensor for matrix in matrices for tensor in matrix)
    flat: tuple[Tensor, ...] = _Statistics.apply(chunk_size, follows, *tensors)  # type: ignore[no-untyped-call]
    of = [Normalisers(matrix.diagonal(), *flat[2 * k : 2 * k + 2]) for k, matrix in enumerate(matrices)]
    rest = flat[2 * len(matrices) :]
    gaps = {pair: ExpectedLogitGap(*rest[2 * k : 2 * k + 2]) for k, pair in enumerate(follows)}
    return PairStatistics(of[0], of[1] if b is not None else None, gaps.get((0, 1)), gaps.get((1, 0)))


class _Column:
    """Running statistics of a matrix's columns [N], and of the gaps of matrices that follow it."""

    def __init__(self, like: Tensor, n: int, followers: list[int]) -> None:
        self.peak = like.new_full((n,), -torch.inf)
        self.total = like.new_zeros(n)
        self.gaps = {student: like.new_zeros(n) for student in followers}

    def update(self, block: Tensor, differences: dict[int, Tensor]) -> None:
        """Add a block [C, N]; `differences[student]` is block − student's block."""
        peak = torch.maximum(self.peak, block.amax(dim=0))
        fade = (self.peak - peak).exp()  # exp(-inf) = 0 at the first block
        weights = (block - peak).exp_()
        self.peak = peak
        self.total.mul_(fade).add_(weights.sum(dim=0))
        for student, difference in differences.items():
            self.gaps[student].mul_(fade).add_(torch.linalg.vecdot(weights, difference, dim=0))


class _Statistics(torch.autograd.Function):
    """(rows, columns) normalisers of each matrix, then (rows, columns) of each gap."""

    @staticmethod
    def forward(
        ctx: Any, chunk_size: int, follows: tuple[tuple[int, int], ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        matrices = [Similarity(*tensors[k : k + 3]) for k in range(0, len(tensors), 3)]
        n = len(matrices[0].left)
        rows = [m.left.new_empty(n) for m in matrices]
        gap_rows = [matrices[0].left.new_empty(n) for _ in follows]
        columns = [
            _Column(m.left, n, [student for student, target in follows if target == k]) for k, m in enumerate(matrices)
        ]
        for span in _spans(n, chunk_size):
            blocks = [_block(m, span) for m in matrices]
            for k, block in enumerate(blocks):
                rows[k][span] = block.logsumexp(dim=1)
            differences: list[dict[int, Tensor]] = [{} for _ in matrices]
            for gap, (student, target) in zip(gap_rows, follows, strict=True):
                difference = differences[target][student] = blocks[target] - blocks[student]
                softmax = (blocks[target] - rows[target][span, None]).exp_()
                gap[span] = torch.linalg.vecdot(softmax, difference, dim=1)
            for k, block in enumerate(blocks):
                columns[k].update(block, differences[k])
        column_lse = [c.peak + c.total.log() for c in columns]
        ctx.save_for_backward(*tensors, *rows, *column_lse)
        ctx.chunk_size, ctx.follows = chunk_size, follows
        outputs = [tensor for pair in zip(rows, column_lse, strict=True) for tensor in pair]
        for gap, (student, target) in zip(gap_rows, follows, strict=True):
            outputs += [gap, columns[target].gaps[student] / columns[target].total]
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.saved_tensors) // 5  # 3 inputs and 2 normalisers a matrix
        tensors = ctx.saved_tensors[: 3 * count]
        rows, columns = ctx.saved_tensors[3 * count : 4 * count], ctx.saved_tensors[4 * count :]
        matrices = [Similarity(*tensors[3 * k : 3 * k + 3]) for k in range(count)]
        needs_grad = ctx.needs_input_grad[2:]
        sums = {
            k: _Sums(m, needs_grad[3 * k : 3 * k + 3])
            for k, m in enumerate(matrices)
            if any(needs_grad[3 * k : 3 * k + 3])
        }
        sources = {k: [(t, 2 * (count + g)) for g, (s, t) in enumerate(ctx.follows) if s == k] for k in sums}
        needed = sorted({*sums, *(target for pairs in sources.values() for target, _ in pairs)})
        for span in _spans(len(matrices[0].left), ctx.chunk_size):
            blocks = {k: _block(matrices[k], span) for k in needed}
            by_row = {k: (blocks[k] - rows[k][span, None]).exp_() for k in needed}
            by_column = {
                k: blocks[k].sub_(columns[k]).exp_() for k in needed
            }  # in place: the logits are not needed any more
            for k in sums:
                grad = by_row[k] * gradients[2 * k][span, None]
                grad.addcmul_(by_column[k], gradients[2 * k + 1][None, :])
                for target, g in sources[k]:
                    grad.addcmul_(by_row[target], gradients[g][span, None], value=-1)
                    grad.addcmul_(by_column[target], gradients[g + 1][None, :], value=-1)
                sums[k].add(span, grad)
        results = [sums[k].results() if k in sums else (None, None, None) for k in range(count)]
        return (None, None, *(gradient for of_matrix in results for gradient in of_matrix))


class _Sums:
    """Gradients of a matrix's left, right and scale, accumulated over blocks of rows; None if not needed.

    Products are summed without the scale, and then each of them also gives the scale's gradient for N·D operations:
    Σ G ⊙ (left·rightᵀ) = Σ right ⊙ (Gᵀ·left) = Σ left ⊙ (G·right), G the gradient of the logits.
    """

    def __init__(self, matrix: Similarity, needs_grad: tuple[bool, ...]) -> None:
        left, right, self._scale = needs_grad
        self._matrix = matrix
        self._right = torch.zeros_like(matrix.right) if right else None
        # If only the scale needs a gradient, either of the two products will do.
        self._left = torch.empty_like(matrix.left) if left or (self._scale and not right) else None
        self._left_wanted = left

    def add(self, span: slice, grad: Tensor) -> None:
        """The gradient [C, N] of a block of logits."""
        if self._left is not None:
            torch.mm(grad, self._matrix.right, out=self._left[span])
        if self._right is not None:
            self._right.addmm_(grad.T, self._matrix.left[span])

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of left, right and scale; call it last."""
        matrix, scale = self._matrix, None
        if self._scale:
            product, other = (self._left, matrix.left) if self._right is None else (self._right, matrix.right)
            assert product is not None
            scale = torch.linalg.vecdot(product, other).sum()
        left = self._left if self._left_wanted else None
        return (
            None if left is None else left.mul_(matrix.scale),
            None if self._right is None else self._right.mul_(matrix.scale),
            scale,
        )


def _block(matrix: Similarity, span: slice) -> Tensor:
    return (matrix.left[span] * matrix.scale) @ matrix.right.T


def _spans(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
