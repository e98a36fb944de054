"""Kullback-Leibler divergence between rows (and columns) of similarity matrices."""

from __future__ import annotations

from torch import Tensor

from cliprd.losses.similarity import ExpectedLogitGap, Normalisers


def kl_divergence(student: Normalisers, target: Normalisers, gap: ExpectedLogitGap) -> Tensor:
    """½[kl(S, sg T) + kl(Sᵀ, sg Tᵀ)], kl(S, T) = KL(softmax(T) ‖ softmax(S)) row by row, mean over rows, temperature 1.

    Σ p_T (log p_T − log p_S) = Σ p_T (T − S) − lse(T) + lse(S), where the sum is `gap`. The target is detached here.
    Serves `hrd` (L follows T), `vrd` (V_I follows V_T) and both directions of `xrd`.
    """
    rows = gap.rows - target.rows.detach() + student.rows
    columns = gap.columns - target.columns.detach() + student.columns
    return (rows.mean() + columns.mean()) / 2
