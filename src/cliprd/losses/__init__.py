"""The distillation loss of CLIP-RD: pure functions on tensors, independent of the rest of cliprd."""

from cliprd.losses.combined import DistillationLoss
from cliprd.losses.extra import Term, inputs_of
from cliprd.losses.weights import LossWeights, check_term_name, method_weights

__all__ = ["DistillationLoss", "LossWeights", "Term", "check_term_name", "inputs_of", "method_weights"]
