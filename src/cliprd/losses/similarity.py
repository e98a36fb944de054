"""A similarity matrix `scale · left @ rightᵀ`, and the statistics of it that the losses need.

Every loss is a function of a few numbers a row and a column: the log-sum-exp (the softmax's normaliser), the diagonal,
and, if one matrix follows another, the expected difference under the target's softmax. `PairStatistics` has these
numbers. `dense_statistics` computes them from full matrices, `chunked` from blocks of rows, and `contrastive` and
`relational` implement the losses once for both.

Shape legend: N samples, D width of the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Similarity(NamedTuple):
    """The matrix `scale · left_ND @ right_NDᵀ`, not yet multiplied out.

    Rows of `left` and `right` are L2-normalised by the caller; row i of both belongs to sample i.
    """

    left: Tensor
    right: Tensor
    scale: Tensor

    def logits(self) -> Tensor:
        """The full matrix [N, N]."""
        return self.scale * (self.left @ self.right.T)

    def diagonal(self) -> Tensor:
        """Each sample with itself [N], without the matrix."""
        return self.scale * (self.left * self.right).sum(dim=1)


class Normalisers(NamedTuple):
    """Of one matrix M: its diagonal, and `logsumexp` of each row and of each column; all [N]."""

    diagonal: Tensor
    rows: Tensor
    columns: Tensor


class ExpectedLogitGap(NamedTuple):
    """Of a student matrix S that follows a target T: Σ softmax(T)·(T − S) over each row and over each column; both [N].

    The target is detached: gradients reach S only.
    """

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True)
class PairStatistics:
    """Statistics of matrix `a` and, if given, of matrix `b`.

    Attributes:
        a, b: normalisers; `b` is None for a lone matrix.
        a_to_b: the gap of `a` that follows `b`; None if not requested.
        b_to_a: the gap of `b` that follows `a`; None if not requested.
    """

    a: Normalisers
    b: Normalisers | None = None
    a_to_b: ExpectedLogitGap | None = None
    b_to_a: ExpectedLogitGap | None = None


def dense_statistics(
    a: Similarity, b: Similarity | None = None, *, a_follows_b: bool = False, b_follows_a: bool = False
) -> PairStatistics:
    """`PairStatistics` from full matrices, differentiated by autograd: fast, with memory that grows as N²."""
    logits_a = a.logits()
    of_a = Normalisers(a.diagonal(), logits_a.logsumexp(dim=1), logits_a.logsumexp(dim=0))
    if b is None:
        return PairStatistics(of_a)
    logits_b = b.logits()
    of_b = Normalisers(b.diagonal(), logits_b.logsumexp(dim=1), logits_b.logsumexp(dim=0))
    return PairStatistics(
        of_a,
        of_b,
        a_to_b=_dense_gap(logits_a, logits_b, of_b) if a_follows_b else None,
        b_to_a=_dense_gap(logits_b, logits_a, of_a) if b_follows_a else None,
    )


def _dense_gap(student: Tensor, target: Tensor, of_target: Normalisers) -> ExpectedLogitGap:
    target = target.detach()
    rows = (target - of_target.rows.detach()[:, None]).exp()
    columns = (target - of_target.columns.detach()[None, :]).exp()
    difference = target - student
    return ExpectedLogitGap(
        torch.linalg.vecdot(rows, difference, dim=1), torch.linalg.vecdot(columns, difference, dim=0)
    )
