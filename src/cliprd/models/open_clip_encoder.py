"""An open_clip model as a frozen `Encoder`: what teachers and students have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cliprd.models.config import Config
from cliprd.models.encoder import count_parameters
from cliprd.models.image_spec import ImageSpec
from cliprd.models.packed import embed_images, embed_texts
from cliprd.models.text import encode_text_features, tokenize, tokenizer_id


class OpenClipEncoder:
    """See `Encoder`.

    Args:
        model: an open_clip model; it is frozen and set to eval mode.
        model_cfg: its open_clip config.
        image: preprocessing of its images.
        id, weights_sha256: see `Encoder`; empty for random weights.
        folder: where a Hugging Face tokenizer's files are; None: its name says it.

    Attributes:
        model, model_cfg: as given.
    """

    def __init__(
        self,
        model: nn.Module,
        model_cfg: Config,
        image: ImageSpec,
        *,
        id: str = "",
        weights_sha256: str = "",
        folder: Path | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model_cfg = model_cfg
        self.id = id
        self.weights_sha256 = weights_sha256
        self.image = image
        self.tokenizer = tokenizer_id(model_cfg)
        self.dim = int(model_cfg["embed_dim"])
        self.logit_scale = float(model.logit_scale.detach().exp())  # type: ignore[operator]
        self._folder = folder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def visual_module(self) -> nn.Module:
        """The image tower: `[B, 3, S, S]` → `[B, dim]` before normalisation."""
        tower: nn.Module = self.model.visual  # type: ignore[assignment]
        return tower

    @property
    def text_module(self) -> nn.Module:
        """The text tower: tokens `[B, L]` → `[B, dim]` before normalisation."""
        return TextTower(self.model)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, L]` int64."""
        return tokenize(self.model_cfg, texts, folder=self._folder).to(self.device)

    def encode_images(self, x_B3HW: Tensor) -> Tensor:
        """`[B, 3, S, S]` normalised as `image` says → `[B, dim]` float32, L2-normalised."""
        return embed_images(self.model, x_B3HW)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, dim]` float32, L2-normalised."""
        return embed_texts(self.model, self.model_cfg, texts, folder=self._folder)

    def parameters_count(self) -> int:
        """Parameters of both towers and the scale."""
        return count_parameters([self.model])


class TextTower(nn.Module):
    """The text half of an open_clip model as one module: tokens `[B, L]` → features `[B, D]`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._full_model = [model]  # in a list, so that the image tower is not registered as a part of this module
        if (tower := getattr(model, "text", None)) is not None:
            self.tower = tower
        else:
            for name, child in model.named_children():
                if name != "visual":
                    self.add_module(name, child)
            for name, parameter in model.named_parameters(recurse=False):
                if name not in ("logit_scale", "logit_bias"):
                    self.register_parameter(name, parameter)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """See `encode_text_features`."""
        return encode_text_features(self._full_model[0], tokens_BL)
