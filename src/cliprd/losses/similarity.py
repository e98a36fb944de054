"""A similarity matrix `scale · left @ rightᵀ`, and what the losses need to know of it.

Every loss over a matrix is a function of few numbers a row and a column: the log of the sum of exponentials (the
softmax's normaliser), the diagonal, and, where one matrix follows another, the mean difference under the target's
softmax. They are gathered in `PairStatistics`, which `dense_statistics` here takes from whole matrices and `chunked`
from blocks of rows; the formulas of `contrastive` and `relational` are then written once for both.

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
        """The whole matrix [N, N]."""
        return self.scale * (self.left @ self.right.T)

    def diagonal(self) -> Tensor:
        """Each sample with itself [N], without the matrix."""
        return self.scale * (self.left * self.right).sum(dim=1)


class Normalisers(NamedTuple):
    """Of one matrix M: its diagonal, and `logsumexp` of each row and of each column; all [N]."""

    diagonal: Tensor
    rows: Tensor
    columns: Tensor


class Gap(NamedTuple):
    """Of a student matrix S that follows a target T: Σ softmax(T)·(T − S) over each row and over each column; both [N].

    The target is detached: gradients reach S only.
    """

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True)
class PairStatistics:
    """What the losses need of matrix `a` and, where there is one, of matrix `b`.

    Attributes:
        a, b: normalisers; `b` is None for a lone matrix.
        a_to_b: the gap of `a` that follows `b`; None if not asked for.
        b_to_a: the gap of `b` that follows `a`; None if not asked for.
    """

    a: Normalisers
    b: Normalisers | None = None
    a_to_b: Gap | None = None
    b_to_a: Gap | None = None


def dense_statistics(
    a: Similarity, b: Similarity | None = None, *, a_follows_b: bool = False, b_follows_a: bool = False
) -> PairStatistics:
    """`PairStatistics` from whole matrices, differentiated by autograd: fast, with memory that grows as N²."""
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


def _dense_gap(student: Tensor, target: Tensor, of_target: Normalisers) -> Gap:
    target = target.detach()
    rows = (target - of_target.rows.detach()[:, None]).exp()
    columns = (target - of_target.columns.detach()[None, :]).exp()
    difference = target - student
    return Gap(torch.linalg.vecdot(rows, difference, dim=1), torch.linalg.vecdot(columns, difference, dim=0))
