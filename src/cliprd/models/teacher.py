"""Teachers that open_clip knows: an architecture with the weights of a pretrained tag or of a file."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from torch import nn

from cliprd import files, storage
from cliprd.models import weights
from cliprd.models.encoder import state_sha256
from cliprd.models.hub import fetching
from cliprd.models.open_clip_encoder import OpenClipEncoder
from cliprd.models.pretrained import ResolvedTeacher, resolve
from cliprd.models.student import build_model
from cliprd.models.text import tokenizer_of
from cliprd.params import Teacher


class OpenClipTeacher(OpenClipEncoder):
    """An open_clip model as a frozen `Encoder`, with the activation and preprocessing of its weights' training.

    Attributes:
        quick_gelu: whether its activation is QuickGELU.
        decided_by: what decided activation, preprocessing and, where a file holds several, the weights.
        decisions: the same for people, a line each.
    """

    def __init__(self, source: ResolvedTeacher, model: nn.Module, note: str = "") -> None:
        sha = state_sha256(model.state_dict())
        if source.quick_gelu:
            sha = files.digest([sha, "quick_gelu"])  # the same weights under another activation are another network
        super().__init__(model, source.config, source.image, id=source.name, weights_sha256=sha)
        self.quick_gelu = source.quick_gelu
        self.decided_by = {**source.decided_by, **({"weights": note} if note else {})}
        self.decisions = [source.line(), *([note] if note else [])]


def untrained(teacher: Teacher) -> tuple[ResolvedTeacher, nn.Module]:
    """What the section names, and its network with random weights.

    Raises:
        As `build_teacher`, but for the weights.
    """
    source = resolve(teacher)
    tokenizer_of(source.config)  # small: one that cannot be had is reported before gigabytes are built or fetched
    return source, build_model(source.config, where=f"teacher.name = {teacher.name}")


def keep_embedding_towers(model: nn.Module) -> None:
    """Drop CoCa's third tower, which writes captions; its weights are in the file, so only when they are compared."""
    if hasattr(model, "text_decoder"):
        del model.text_decoder


def build_teacher(teacher: Teacher, *, device: torch.device | None = None) -> OpenClipTeacher:
    """Load the open_clip teacher that a section of the parameters names; a weights file may lie in S3.

    No code of a weights file runs: see `models.weights`.

    Raises:
        ParamsError: see `pretrained.resolve`.
        InputError: the file is missing, damaged, or holds other weights; or the machine is set to offline and the
            weights or the tokenizer are not in its cache.
        RetryableError: weights or tokenizer could not be downloaded.
        MachineError: a package that the architecture needs is not installed.
    """
    source, model = untrained(teacher)
    path = _download(source) if source.tag else storage.fetch_file(source.weights)
    note = weights.load(model, path, arch=source.arch, resize=bool(source.tag))
    keep_embedding_towers(model)
    set_model_preprocess_cfg(model, source.image.to_dict())
    return OpenClipTeacher(source, model.to(device or torch.device("cpu")), note)


def _download(source: ResolvedTeacher) -> Path:
    remedy = (
        "Download them once where there is network access (they stay in the cache of open_clip or Hugging Face), "
        f"or give a file: teacher.name=open_clip:{source.arch}:/path/to/weights.safetensors"
    )
    with fetching(f"The file of weights {source.arch}:{source.weights}", remedy):
        return Path(open_clip.download_pretrained(dict(source.tag)))
