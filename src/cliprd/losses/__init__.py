"""The distillation loss of CLIP-RD: pure functions on tensors, nothing of cliprd but this room."""

from cliprd.losses.combined import DistillationLoss
from cliprd.losses.weights import LossWeights, method_weights

__all__ = ["DistillationLoss", "LossWeights", "method_weights"]
