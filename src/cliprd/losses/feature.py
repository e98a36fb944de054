"""Feature distillation: squared distance between the student's and the teacher's embeddings."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss


def feature_distance(
    student_image: Tensor, student_text: Tensor, teacher_image: Tensor, teacher_text: Tensor
) -> Tensor:
    """mse(x_I, t_I) + mse(x_T, t_T) (`fd`): all [N, D], normalised, each a mean over N·D. Source: CLIP-KD, FD."""
    return mse_loss(student_image, teacher_image) + mse_loss(student_text, teacher_text)
