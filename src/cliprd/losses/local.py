"""Statistics of one process's own rows and columns of a similarity matrix, `[n, N]` each (open_clip's `local_loss`).

Every loss here is a mean over rows and a mean over columns, so each process computes the part of its own slice,
weighted by n / N; the sum over processes is the loss. A column is a row of
the transposed matrix, so that all statistics are complete within a block of rows: no streaming is needed.

Shape legend: N samples, n rows of this process, C rows of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cliprd.losses.similarity import ExpectedLogitGap, Normalisers, PairStatistics, Similarity


def local_statistics(
    a: Similarity,
    b: Similarity | None = None,
    *,
    rows: slice,
    chunk_size: int | None = None,
    a_follows_b: bool = False,
    b_follows_a: bool = False,
) -> PairStatistics:
    """`PairStatistics` of the samples `rows` alone; all tensors are [n].

    Args:
        rows: a slice of the N samples.
        chunk_size: rows in memory at a time, recomputed in the backward pass; None: all n.
    """
    follows = (a_follows_b, b_follows_a)
    by_row = _rows(a, b, rows, chunk_size, follows)
    by_column = _rows(_transposed(a), None if b is None else _transposed(b), rows, chunk_size, follows)
    matrices = [a] if b is None else [a, b]
    own = [Similarity(m.left[rows], m.right[rows], m.scale).diagonal() for m in matrices]
    of = [Normalisers(diagonal, by_row[k], by_column[k]) for k, diagonal in enumerate(own)]
    gaps = iter(
        ExpectedLogitGap(row, column) for row, column in zip(by_row[len(of) :], by_column[len(of) :], strict=True)
    )
    return PairStatistics(
        of[0],
        of[1] if b is not None else None,
        a_to_b=next(gaps) if a_follows_b else None,
        b_to_a=next(gaps) if b_follows_a else None,
    )


def _transposed(matrix: Similarity) -> Similarity:
    return Similarity(matrix.right, matrix.left, matrix.scale)


def _rows(
    a: Similarity, b: Similarity | None, rows: slice, chunk_size: int | None, follows: tuple[bool, bool]
) -> list[Tensor]:
    """Normalisers of a's rows, of b's, and the requested gaps; [n] each."""
    others = None if b is None else (b.left[rows], b.right, b.scale)
    left = a.left[rows]
    if chunk_size is None or chunk_size >= len(left):
        return list(_block(left, a.right, a.scale, others, follows))
    blocks = []
    for start in range(0, len(left), chunk_size):
        span = slice(start, start + chunk_size)
        of_others = None if others is None else (others[0][span], *others[1:])
        blocks.append(checkpoint(_block, left[span], a.right, a.scale, of_others, follows, use_reentrant=False))
    return [torch.cat(parts) for parts in zip(*blocks, strict=True)]


def _block(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    others: tuple[Tensor, Tensor, Tensor] | None,
    follows: tuple[bool, bool],
) -> tuple[Tensor, ...]:
    matrices = [(left * scale) @ right.T]
    if others is not None:
        matrices.append((others[0] * others[2]) @ others[1].T)
    normalisers = [matrix.logsumexp(dim=1) for matrix in matrices]
    gaps = []
    for student, target in ((0, 1), (1, 0)):
        if follows[student]:
            aim = matrices[target].detach()
            softmax = (aim - normalisers[target].detach()[:, None]).exp()
            gaps.append(torch.linalg.vecdot(softmax, aim - matrices[student], dim=1))
    return (*normalisers, *gaps)
