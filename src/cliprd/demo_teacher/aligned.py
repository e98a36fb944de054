"""The demo teacher: EfficientNet-Lite0 and MiniLM, joined by two small heads that are trained on the demo's pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cliprd import files
from cliprd.demo_teacher import efficientnet, minilm
from cliprd.demo_teacher.efficientnet import EfficientNetLite0
from cliprd.demo_teacher.heads import AlignedHeads, conse
from cliprd.demo_teacher.minilm import MiniLM
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.models.encoder import CONFIG_FILE, count_parameters, describe, state_sha256
from cliprd.models.image_spec import ImageSpec
from cliprd.reading import read_json

ID = "aligned:efficientnet_lite0+minilm_l6_v2"
HEADS_FILE = "heads.safetensors"


class Backbones:
    """The two frozen networks, and the names of the 1000 classes in the sentence space.

    Raises:
        MachineError: a package is not installed, or its files are damaged.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.image = EfficientNetLite0(device)
        self.text = MiniLM(device)
        self.names_CW = self.text(open_clip.IMAGENET_CLASSNAMES)

    def features(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels → pooled features `[B, 1280]` and the images named in the sentence space `[B, 384]`."""
        pooled_BF, logits_BC = self.image(x_B3HW)
        return pooled_BF, conse(logits_BC, self.names_CW)

    @property
    def sha256(self) -> str:
        """Digest of all frozen weights and of the class names."""
        return files.digest([self.image.sha256, self.text.sha256, list(open_clip.IMAGENET_CLASSNAMES)])


def image_spec(size: int) -> ImageSpec:
    """The backbone's pixels at `size`."""
    return ImageSpec(size=size, mean=efficientnet.MEAN, std=efficientnet.STD, interpolation="bicubic")


class AlignedTeacher:
    """Backbones and heads as a frozen `Encoder`."""

    def __init__(self, backbones: Backbones, heads: AlignedHeads, image: ImageSpec) -> None:
        self._backbones = backbones
        self._heads = heads.eval().requires_grad_(False).to(backbones.device)
        self.id = ID
        self.image = image
        self.dim = heads.shared.out_features
        self.logit_scale = float(heads.scale)
        self.tokenizer = f"minilm-l6-v2-wordpiece:{minilm.MAX_TOKENS}"
        self.weights_sha256 = files.digest([backbones.sha256, state_sha256(heads.state_dict())])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._backbones.device

    @property
    def visual_module(self) -> nn.Module:
        """The image tower: `[B, 3, S, S]` → `[B, dim]`, L2-normalised, in torch throughout."""
        return _ImageTower(self._backbones, self._heads)

    @property
    def text_module(self) -> nn.Module:
        """The text tower: tokens `[B, L]` → `[B, dim]`, L2-normalised."""
        return _TextTower(self._backbones, self._heads)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, L]` int64."""
        return self._backbones.text.padded(self._backbones.text.tokens(texts))

    @torch.no_grad()
    def encode_images(self, x_B3HW: Tensor) -> Tensor:
        """`[B, 3, S, S]` normalised as `image` says → `[B, dim]` float32, L2-normalised."""
        return self._heads.image(*self._backbones.features(x_B3HW))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, dim]` float32, L2-normalised."""
        return self._heads.text(self._backbones.text(texts))

    def parameters_count(self) -> int:
        """Parameters of both backbones and both heads."""
        return count_parameters([self._backbones.image.module, self._backbones.text.module, self._heads])


class _ImageTower(nn.Module):
    def __init__(self, backbones: Backbones, heads: AlignedHeads) -> None:
        super().__init__()
        self.backbone = backbones.image.module
        self.image_in, self.image_out, self.shared = heads.image_in, heads.image_out, heads.shared
        self._parts = ((backbones, heads),)  # in a tuple: the text tower is no part of this module

    def forward(self, x_B3HW: Tensor) -> Tensor:
        backbones, heads = self._parts[0]
        pooled_BF, logits_BC = backbones.image.in_torch(x_B3HW)
        return heads.image(pooled_BF, conse(logits_BC, backbones.names_CW))


class _TextTower(nn.Module):
    def __init__(self, backbones: Backbones, heads: AlignedHeads) -> None:
        super().__init__()
        self.backbone = backbones.text.module
        self.text_in, self.text_out, self.shared = heads.text_in, heads.text_out, heads.shared
        self._heads = (heads,)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return self._heads[0].text(nn.functional.normalize(self.backbone(tokens_BL), dim=-1))


def save(teacher: AlignedTeacher, heads: AlignedHeads, folder: Path, training: dict[str, Any]) -> None:
    """Write `heads.safetensors` and `teacher.json`, each atomically; equal heads give equal bytes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}
    with atomic_write(folder / HEADS_FILE) as file:
        file.write(safetensors.torch.save(state))
    files.write_json(folder / CONFIG_FILE, {**describe(teacher), "training": training})


def load(folder: Path, *, device: torch.device) -> AlignedTeacher:
    """Open a folder that `save` wrote.

    Raises:
        MachineError: a package is not installed.
        InputError: a file is missing or damaged, or the packages hold other weights than the heads were trained on.
    """
    remedy = "Make the teacher again with `cliprd teacher` (or `dvc repro`)."
    try:
        config = read_json(folder / CONFIG_FILE)
        state = safetensors.torch.load_file(folder / HEADS_FILE)
        dim, hidden = state["image_out.weight"].shape
        heads = AlignedHeads(dim, hidden, 0.0)
        heads.load_state_dict(state)
        image, expected = ImageSpec.from_dict(config["image"]), config["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"The teacher in {folder} is missing or damaged: {error}.", remedy) from error
    teacher = AlignedTeacher(Backbones(device), heads, image)
    if teacher.weights_sha256 != expected:
        raise InputError(
            f"The teacher in {folder} was trained on other backbone weights than the installed packages hold "
            f"(sha256 {expected[:12]}…, now {teacher.weights_sha256[:12]}…).",
            remedy,
        )
    return teacher
