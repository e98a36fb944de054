"""The two trained heads of the demo teacher, over frozen image and text features.

Shapes: B images or texts, F = 1280 pooled image features, W = 384 the sentence space, D the shared width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliprd.demo_teacher import efficientnet, minilm

TOP = 10  # ImageNet classes that name an image


def conse(logits_BC: Tensor, names_CW: Tensor) -> Tensor:
    """Images named in the sentence space: the mean of the top class names, weighted by probability, as unit vectors.

    Args:
        logits_BC: ImageNet logits.
        names_CW: sentence embeddings of the class names, L2-normalised.

    Source: ConSE, Norouzi et al., arXiv 1312.5650.
    """
    weight_BT, best_BT = logits_BC.softmax(1).topk(TOP, dim=1)
    return functional.normalize((weight_BT[..., None] * names_CW[best_BT]).sum(1), dim=-1)


class AlignedHeads(nn.Module):
    """Image and text heads into one space of `dim`.

    Both start as the same linear projection of the sentence space, in which an image is where its ImageNet class names
    are. Two MLPs that start at zero learn what is to be added to that: for images from the pooled features.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        features, width = efficientnet.FEATURES, minilm.WIDTH
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.mean: Tensor
        self.std: Tensor
        self.shared = nn.Linear(width, dim, bias=False)
        self.image_in = nn.Linear(features + width, hidden)
        self.image_out = nn.Linear(hidden, dim)
        self.text_in = nn.Linear(width, hidden)
        self.text_out = nn.Linear(hidden, dim)
        self.feature_dropout = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        for layer in (self.image_out, self.text_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def fit(self, pooled_NF: Tensor, texts_MW: Tensor) -> None:
        """Set what follows from the data: the features' standardisation, and the sentence space's main directions."""
        self.mean.copy_(pooled_NF.mean(0))
        self.std.copy_(pooled_NF.std(0, correction=0) + 1e-3)
        _, directions_WW = torch.linalg.eigh((texts_MW.T @ texts_MW).double())
        main = directions_WW.flip(1)[:, : self.shared.out_features].T.float()
        self.shared.weight.zero_()
        self.shared.weight[: len(main)] = main

    @torch.no_grad()
    def blend(self, share: float) -> None:
        """Keep `share` of what the MLPs learned to add; the rest stays as it began."""
        for layer in (self.image_out, self.text_out):
            layer.weight.mul_(share)
            layer.bias.mul_(share)

    def image(self, pooled_BF: Tensor, conse_BW: Tensor) -> Tensor:
        """`[B, F]` and `[B, W]` → `[B, D]`, L2-normalised."""
        standard = self.feature_dropout((pooled_BF - self.mean) / self.std)
        named = conse_BW * math.sqrt(conse_BW.shape[1])  # entries of about unit size, as the standardised features
        hidden = self.dropout(functional.gelu(self.image_in(torch.cat([standard, named], 1))))
        return functional.normalize(self.shared(conse_BW) + self.image_out(hidden), dim=-1)

    def text(self, text_BW: Tensor) -> Tensor:
        """`[B, W]` → `[B, D]`, L2-normalised."""
        hidden = self.dropout(functional.gelu(self.text_in(text_BW * math.sqrt(text_BW.shape[1]))))
        return functional.normalize(self.shared(text_BW) + self.text_out(hidden), dim=-1)

    @property
    def scale(self) -> Tensor:
        """The similarity multiplier, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)
