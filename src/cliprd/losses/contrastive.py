"""Cross entropy against the diagonal: each sample must be matched with its own partner in the batch.

The target is the diagonal alone, as in the official code: samples with equal captions are negatives of each other.
"""

from __future__ import annotations

from torch import Tensor

from cliprd.losses.similarity import Normalisers


def cross_entropy_rows(matrix: Normalisers) -> Tensor:
    """CE(M, y): each row picks its column, mean over rows."""
    return (matrix.rows - matrix.diagonal).mean()


def cross_entropy_columns(matrix: Normalisers) -> Tensor:
    """CE(Mᵀ, y): each column picks its row, mean over columns."""
    return (matrix.columns - matrix.diagonal).mean()


def contrastive(matrix: Normalisers) -> Tensor:
    """½[CE(M, y) + CE(Mᵀ, y)]: CLIP's loss (`task`), and the two hidden parts of the official VRD (`vrd_ce_*`)."""
    return (cross_entropy_rows(matrix) + cross_entropy_columns(matrix)) / 2


def interactive_contrastive(image_to_text: Normalisers, text_to_image: Normalisers) -> Tensor:
    """½[CE(Bᵀ, y) + CE(Aᵀ, y)] with A = σ·t_I x_Tᵀ and B = σ·t_T x_Iᵀ (`icl`): each student embedding, a column of A or
    B, picks its partner among the teacher's of the other modality. Source: CLIP-KD, interactive contrastive learning.
    """
    return (cross_entropy_columns(text_to_image) + cross_entropy_columns(image_to_text)) / 2
