"""Teachers that open_clip knows: an architecture with the weights of a pretrained tag or of a local file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import Tensor, nn

from cliprd import storage
from cliprd.errors import InputError, ParamsError, RetryableError
from cliprd.image_spec import ImageSpec
from cliprd.models import config as configs
from cliprd.models.encoder import count_parameters, state_sha256
from cliprd.models.packed import embed_images, embed_texts
from cliprd.models.student import TextTower, build_model
from cliprd.models.text import tokenize, tokenizer_id, tokenizer_of


class OpenClipTeacher:
    """An open_clip model as a frozen `Encoder`, with the preprocessing that its weights were trained with."""

    def __init__(self, id: str, model: nn.Module, model_cfg: configs.Config, image: ImageSpec) -> None:
        self._model = model.eval().requires_grad_(False)
        self._model_cfg = model_cfg
        self.id = id
        self.image = image
        self.dim = int(model_cfg["embed_dim"])
        self.tokenizer = tokenizer_id(model_cfg)
        self.logit_scale = float(model.logit_scale.exp())  # type: ignore[operator]
        self.weights_sha256 = state_sha256(model.state_dict())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._model.parameters()).device

    @property
    def visual_module(self) -> nn.Module:
        """The image tower: `[B, 3, S, S]` → `[B, dim]` before normalisation."""
        tower: nn.Module = self._model.visual  # type: ignore[assignment]
        return tower

    @property
    def text_module(self) -> nn.Module:
        """The text tower: tokens `[B, L]` → `[B, dim]` before normalisation."""
        return TextTower(self._model)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, L]` int64."""
        return tokenize(self._model_cfg, texts).to(self.device)

    def encode_images(self, x_B3HW: Tensor) -> Tensor:
        """`[B, 3, S, S]` normalised as `image` says → `[B, dim]` float32, L2-normalised."""
        return embed_images(self._model, x_B3HW)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, dim]` float32, L2-normalised."""
        return embed_texts(self._model, self._model_cfg, texts)

    def parameters_count(self) -> int:
        """Parameters of both towers and the scale."""
        return count_parameters([self._model])


def build_teacher(name: str, *, device: torch.device | None = None) -> OpenClipTeacher:
    """Load `open_clip:<architecture>:<pretrained tag or file>`; the file may lie in S3.

    Files are read as safetensors, or by torch with `weights_only=True`: no pickled code runs.

    Raises:
        ParamsError: an unknown architecture, or neither a tag nor a file.
        InputError: the file is damaged, holds other weights, or the model wants its images in a way that is not
            supported; or the machine is set to offline and the weights are not in its cache.
        RetryableError: the weights could not be downloaded.
    """
    _, arch, pretrained = name.split(":", 2)
    model_cfg = configs.named(arch)
    tag = open_clip.get_pretrained_cfg(arch, pretrained)
    path = _download(arch, pretrained, tag) if tag else storage.fetch_file(pretrained)
    if not path.is_file():
        _refuse(arch, pretrained)
    model = build_model(model_cfg, where=f"teacher.name = {name}")
    try:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # torch, pickle and safetensors each raise their own for a damaged or foreign file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path} is damaged, or does not hold weights of {arch}: {first}",
            "Give a safetensors file or a plain state dict of that architecture.",
        ) from error
    tokenizer_of(model_cfg)  # one that cannot be had is told now
    image = _image_spec(model, model_cfg, tag, name)
    return OpenClipTeacher(name, model.to(device or torch.device("cpu")), model_cfg, image)


def _image_spec(model: nn.Module, model_cfg: configs.Config, tag: dict[str, Any], name: str) -> ImageSpec:
    preprocess = merge_preprocess_dict(PreprocessCfg(), tag or {})
    preprocess["size"] = configs.image_size(model_cfg)
    set_model_preprocess_cfg(model, preprocess)
    if preprocess["resize_mode"] != "shortest" or preprocess["interpolation"] not in ("bicubic", "bilinear"):
        raise InputError(
            f"{name} wants images resized by '{preprocess['resize_mode']}' with '{preprocess['interpolation']}'.",
            "cliprd resizes the shorter side, bicubic or bilinear: take another teacher.",
        )
    return ImageSpec.from_dict(preprocess)


def _download(arch: str, pretrained: str, tag: dict[str, Any]) -> Path:
    try:
        return Path(open_clip.download_pretrained(tag))
    except Exception as error:  # urllib, huggingface_hub, requests, sockets: all mean the same here
        problem = f"The weights {arch}:{pretrained} are not on this machine and could not be downloaded"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = (
            "Download them once where there is network access (they stay in the cache of open_clip or Hugging Face), "
            f"or give a file: teacher.name=open_clip:{arch}:/path/to/weights.safetensors"
        )
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise InputError(f"{problem}: HF_HUB_OFFLINE is set.", remedy) from error
        raise RetryableError(f"{problem}: {reason}", remedy) from error


def _refuse(arch: str, pretrained: str) -> None:
    tags = open_clip.list_pretrained_tags_by_model(arch)
    looks_like_file = "/" in pretrained or Path(pretrained).suffix in {".safetensors", ".pt", ".pth", ".bin"}
    if looks_like_file:
        raise InputError(f"The teacher's weights {pretrained} do not exist.", "Mend the path in teacher.name.")
    near = difflib.get_close_matches(pretrained, tags, n=1, cutoff=0.4)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise ParamsError(
        f"teacher.name: '{pretrained}' is neither a pretrained tag of {arch} nor a file.",
        f"{hint}Tags of {arch}: {', '.join(tags) or 'none'}.",
    )
