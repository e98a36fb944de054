"""The interface of models that embed images and texts, teachers and students."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cliprd.models.image_spec import ImageSpec


class Encoder(Protocol):
    """A frozen two-tower model.

    Attributes:
        id: name for messages and fingerprints, for example `open_clip:ViT-B-16:laion400m_e32`.
        weights_sha256: hex digest of the weights; with `id`, `image` and `tokenizer` it determines every embedding.
        image: the image tower's preprocessing.
        tokenizer: identity of the text preprocessing.
        dim: width of the shared embedding space.
        logit_scale: the learned similarity multiplier, already exponentiated.
        device: of the weights; inputs are moved there and outputs stay there.
        visual_module, text_module: the towers, for counting parameters and MACs.
    """

    id: str
    weights_sha256: str
    image: ImageSpec
    tokenizer: str
    dim: int
    logit_scale: float

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def visual_module(self) -> nn.Module:
        """The image tower: `[B, 3, S, S]` in."""
        ...

    @property
    def text_module(self) -> nn.Module:
        """The text tower: its own tokens in."""
        ...

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, L]` int64 on `device`, as `text_module` takes them."""
        ...

    def encode_images(self, x_B3HW: Tensor) -> Tensor:
        """`[B, 3, image.size, image.size]` normalised as `image` says → `[B, dim]` float32, L2-normalised, no grad."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, dim]` float32, L2-normalised, no grad."""
        ...

    def parameters_count(self) -> int:
        """Parameters of both towers, everything that runs at inference included."""
        ...


CONFIG_FILE = "teacher.json"


def describe(teacher: Encoder) -> dict[str, Any]:
    """What `teacher.json` says of any teacher: the identity that the cache's fingerprint is made of."""
    return {
        "id": teacher.id,
        "dim": teacher.dim,
        "logit_scale": teacher.logit_scale,
        "weights_sha256": teacher.weights_sha256,
        "image": teacher.image.to_dict(),
        "tokenizer": teacher.tokenizer,
    }


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """sha256 (hex) of named tensors: names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def count_parameters(modules: Iterable[nn.Module]) -> int:
    """Number of parameters of `modules`; shared ones count once."""
    return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())


def resolve_device(name: str | None) -> torch.device:
    """`auto` or None → a GPU if there is one, else the CPU."""
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(str(name))
