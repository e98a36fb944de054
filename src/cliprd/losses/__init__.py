"""The distillation loss of CLIP-RD: pure functions on tensors, independent of the rest of cliprd."""

from cliprd.losses.combined import DistillationLoss
from cliprd.losses.weights import LossWeights, method_weights

__all__ = ["DistillationLoss", "LossWeights", "method_weights"]
