"""The model under test: pixels or texts in, embeddings out, with the student's projections if it has any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from cliprd.data.augment import to_tensor
from cliprd.errors import InputError
from cliprd.models.encoder import Encoder
from cliprd.models.image_spec import ImageSpec
from cliprd.models.packed import pooled_image_features, pooled_text_features
from cliprd.models.text import tokenize

LOSS_FILE = "loss.safetensors"


class Towers:
    """An encoder, with the projections of a student whose width differs from its teacher's.

    Args:
        encoder: the model.
        projections: (image, text) Linear layers, student → teacher width, applied to embeddings before normalisation.
    """

    def __init__(self, encoder: Encoder, projections: tuple[nn.Linear, nn.Linear] | None = None) -> None:
        self.encoder = encoder
        self.projections = projections

    @property
    def id(self) -> str:
        """The encoder's name."""
        return self.encoder.id

    @property
    def spec(self) -> ImageSpec:
        """The encoder's image preprocessing."""
        return self.encoder.image

    @torch.no_grad()
    def images(self, pixels_BSS3: Tensor) -> tuple[Tensor, ...]:
        """uint8 `[B, S, S, 3]` → (embeddings `[B, dim]`, projected `[B, teacher dim]` if there are projections)."""
        x_B3HW = to_tensor(pixels_BSS3, self.spec, self.encoder.device)
        if self.projections is None:
            return (self.encoder.encode_images(x_B3HW),)
        return self._both(pooled_image_features(self.encoder.model, x_B3HW), self.projections[0])  # type: ignore[attr-defined]

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """B texts → (embeddings `[B, dim]`, projected `[B, teacher dim]` if there are projections)."""
        if self.projections is None:
            return (self.encoder.encode_texts(texts),)
        model, config = self.encoder.model, self.encoder.model_cfg  # type: ignore[attr-defined]
        features_BD = pooled_text_features(model, tokenize(config, texts), self.encoder.device)
        return self._both(features_BD, self.projections[1])

    @staticmethod
    def _both(features: Tensor, projection: nn.Linear) -> tuple[Tensor, Tensor]:
        raw = features.float()
        return normalize(raw, dim=-1), normalize(linear(raw, projection.weight, projection.bias), dim=-1)


def read_projections(folder: Path, device: torch.device) -> tuple[nn.Linear, nn.Linear] | None:
    """The projections in a student folder's `loss.safetensors`; None if there are none (equal widths, or baseline).

    Raises:
        InputError: the file is damaged.
    """
    path = folder / LOSS_FILE
    if not path.is_file():
        return None
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Train the student again with `cliprd distill`.") from error
    names = [f"{tower}_projection.{part}" for tower in ("image", "text") for part in ("weight", "bias")]
    if not all(name in state for name in names):
        return None
    layers = []
    for tower in ("image", "text"):
        weight, bias = state[f"{tower}_projection.weight"].float(), state[f"{tower}_projection.bias"].float()
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer.to(device).requires_grad_(False))
    return layers[0], layers[1]
