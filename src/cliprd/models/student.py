"""Builds the student from params.yaml, and saves and loads it as a folder that open_clip can load too."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from cliprd import files, params, storage
from cliprd.errors import CliprdError, InputError, ParamsError
from cliprd.files import atomic_write
from cliprd.models import config as configs
from cliprd.models.config import Config, student_config
from cliprd.models.hub import fetching
from cliprd.models.image_spec import ImageSpec
from cliprd.models.open_clip_encoder import OpenClipEncoder
from cliprd.models.text import encode_text_features, tokenize, tokenizer_of
from cliprd.reading import read_json

__all__ = [
    "CONFIG_FILE", "WEIGHTS_FILE", "StudentEncoder", "build_model", "build_student", "encode_image_features",
    "encode_text_features", "load_student", "save_student", "student_config", "student_spec", "tokenize",
]  # fmt: skip

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


def build_student(student: params.Student, *, seed: int) -> open_clip.CLIP:
    """A randomly initialised student, determined by `seed` on every machine; the global generator is not changed.

    Returns:
        `open_clip.CLIP` (or `CustomTextCLIP`) in training mode, float32, on the CPU.

    Raises:
        ParamsError: the architecture is unknown or its config does not make a model.
    """
    model_cfg = student_config(student)
    where = "student.config" if student.config is not None else f"student.arch = {student.arch}"
    tokenizer_of(model_cfg)  # fail early if it cannot be loaded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(model_cfg, where=where)
        _check_forward(model, model_cfg, where)
    set_model_preprocess_cfg(model, _preprocess_cfg(student, model_cfg))
    return model.train()


def build_model(model_cfg: Config, *, where: str) -> open_clip.CLIP:
    """The randomly initialised model of `model_cfg`, without any download of tower weights.

    Raises:
        ParamsError: open_clip cannot build it.
        RetryableError, InputError, MachineError: the config of its Hugging Face text tower cannot be loaded.
    """
    kwargs = deepcopy(model_cfg)
    if kwargs["vision_cfg"].get("timm_model_name"):
        kwargs["vision_cfg"]["timm_model_pretrained"] = False
    hf_text = bool(kwargs["text_cfg"].get("hf_model_name"))
    if hf_text:
        kwargs["text_cfg"]["hf_model_pretrained"] = False
    custom = kwargs.pop("custom_text", False) or hf_text
    kind = (open_clip.CoCa if "multimodal_cfg" in kwargs else open_clip.CustomTextCLIP) if custom else open_clip.CLIP
    if hf_text:
        _text_tower_config(kwargs["text_cfg"]["hf_model_name"])
    try:
        model: open_clip.CLIP = kind(**kwargs)
        return model
    except Exception as error:  # open_clip, timm and transformers raise exceptions of any type
        raise ParamsError(f"{where} makes no model: {_first_line(error)}", "Correct the config.") from error


def _text_tower_config(name: str) -> None:
    """Download the config of a Hugging Face text tower, which open_clip needs to build it."""
    with fetching(f"The config of the text tower '{name}'"):
        from transformers import AutoConfig

        AutoConfig.from_pretrained(name)


def _check_forward(model: nn.Module, model_cfg: Config, where: str) -> None:
    """Run one image and one text through the towers, so that a config that does not run fails before the training."""
    size, dim = configs.image_size(model_cfg), model_cfg["embed_dim"]
    model.eval()
    try:
        with torch.no_grad():
            image = encode_image_features(model, torch.zeros(1, 3, size, size))
            text = encode_text_features(model, tokenize(model_cfg, ["a"]))
    except CliprdError:
        raise
    except Exception as error:
        raise ParamsError(
            f"{where} makes a model that does not run: {_first_line(error)}", "Correct the config."
        ) from error
    for tower, shape in (("vision_cfg", tuple(image.shape)), ("text_cfg", tuple(text.shape))):
        if shape != (1, dim):
            raise ParamsError(f"{where}.{tower} gives embeddings of shape {shape[1:]}, embed_dim is {dim}.")


def student_spec(model: nn.Module, student: params.Student) -> ImageSpec:
    """Image preprocessing of `model`: the size from the tower, the rest from the parameters."""
    tower: Any = model.visual
    size = tower.image_size
    side = int(size[0] if isinstance(size, list | tuple) else size)
    return ImageSpec(size=side, mean=student.mean, std=student.std, interpolation=student.interpolation)


def encode_image_features(model: nn.Module, x_B3HW: Tensor) -> Tensor:
    """`[B, 3, S, S]` → `[B, D]` before normalisation, attached to the graph."""
    features: Tensor = model.encode_image(x_B3HW)  # type: ignore[operator]
    return features


def save_student(model: nn.Module, student: params.Student, folder: Path) -> None:
    """Write `open_clip_config.json` and `open_clip_model.safetensors`, each atomically; equal weights give equal bytes.

    `open_clip.create_model_and_transforms("local-dir:<folder>")` and `open_clip.get_tokenizer("local-dir:<folder>")`
    load the same model, preprocessing and tokenizer without cliprd.
    """
    model_cfg = student_config(student)
    tokenizer = tokenizer_of(model_cfg)
    if isinstance(tokenizer, HFTokenizer):
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder)  # open_clip expects it beside the config
    # Cloned, because safetensors refuses tensors that share memory; without metadata, whose order is not fixed.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(state))
    config = {"model_cfg": model_cfg, "preprocess_cfg": _preprocess_cfg(student, model_cfg)}
    files.write_json(folder / CONFIG_FILE, config)


def _preprocess_cfg(student: params.Student, model_cfg: Config) -> dict[str, Any]:
    return {
        **dataclasses.asdict(PreprocessCfg()),
        "size": configs.image_size(model_cfg),
        "mean": list(student.mean),
        "std": list(student.std),
        "interpolation": student.interpolation,
        "resize_mode": "shortest",
    }


class StudentEncoder(OpenClipEncoder):
    """A saved student as a frozen `Encoder`; `folder` has its files."""

    def __init__(
        self, model: nn.Module, model_cfg: Config, image: ImageSpec, weights_sha256: str, folder: Path
    ) -> None:
        name = f"student:{weights_sha256[:16]}"
        super().__init__(model, model_cfg, image, id=name, weights_sha256=weights_sha256, folder=folder)


def load_student(folder: str | Path, *, device: torch.device | None = None) -> StudentEncoder:
    """Open a folder that `save_student` wrote, or any open_clip local-dir folder with safetensors weights.

    Args:
        folder: on this machine.
        device: where to put the weights; None: the CPU.

    Returns:
        The frozen student: `encode_images`, `encode_texts` and the rest of `Encoder`; `model` is open_clip's.

    Raises:
        InputError: a file is missing, damaged, or does not fit the other.
    """
    folder = Path(folder)
    remedy = "Train the student again with `cliprd distill` (or `dvc repro`)."
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing.", remedy)
    try:
        config = read_json(folder / CONFIG_FILE)
        model_cfg, preprocess = config["model_cfg"], config["preprocess_cfg"]
        configs.check(model_cfg, where=str(folder / CONFIG_FILE))
        image = ImageSpec.from_dict({**preprocess, "size": configs.image_size(model_cfg)})
        model = build_model(model_cfg, where=str(folder / CONFIG_FILE))
    except (ValueError, KeyError, TypeError, AttributeError, ParamsError) as error:
        raise InputError(f"{folder / CONFIG_FILE} is damaged: {_first_line(error)}", remedy) from error
    try:
        state = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        model.load_state_dict(state, strict=True)
    except (safetensors.SafetensorError, RuntimeError, OSError) as error:
        raise InputError(
            f"{folder / WEIGHTS_FILE} is damaged or belongs to another config: {_first_line(error)}", remedy
        ) from error
    set_model_preprocess_cfg(model, preprocess)
    sha = storage.sha256(folder / WEIGHTS_FILE)
    return StudentEncoder(model.to(device or torch.device("cpu")), model_cfg, image, sha, folder)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__
