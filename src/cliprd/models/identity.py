"""What identifies a teacher before it is loaded; no model library is needed to know it."""

from __future__ import annotations

import os
from typing import Any

from cliprd import storage
from cliprd.errors import InputError
from cliprd.files import digest
from cliprd.models.plugin import plugin_of
from cliprd.params import Teacher

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz")  # of weights files, as people name them
CONFIGS = ("open_clip_config.json", "config.json")  # beside the weights: what decides how they are to be taken


def weights_version(teacher: Teacher) -> str:
    """What identifies the weights behind a teacher's name; empty where the name alone does, as a tag's.

    Configs that lie beside a file belong to it.

    Raises:
        ParamsError: a plug-in is not registered. InputError: a file is missing or forbidden.
        RetryableError: the network or the store failed.
    """
    if not teacher.of_open_clip:
        return plugin_of(teacher.name).version(teacher.own_settings)
    pretrained = teacher.name.split(":", 2)[-1]
    if not (storage.is_s3(pretrained) or os.path.isfile(pretrained)):
        refuse_missing(pretrained)
        return ""
    version = storage.fingerprints([pretrained])[pretrained]
    configs = [data for config in CONFIGS if (data := storage.read_bytes(beside(pretrained, config))) is not None]
    return digest([version, *(data.decode("latin-1") for data in configs)]) if configs else version


def refuse_missing(weights: str) -> None:
    """Refuse what can only be a path, and leads to nothing here.

    Raises:
        InputError: it does so.
    """
    if ("/" in weights or weights.endswith(SUFFIXES)) and not os.path.exists(weights):
        raise InputError(f"The teacher's weights {weights} do not exist.", "Mend the path in teacher.name.")


def beside(weights: str, name: str) -> str:
    """The file called `name` in the folder of `weights`, here or in S3."""
    folder, slash, _ = weights.rpartition("/")
    return f"{folder}{slash}{name}"


def shaping(teacher: Teacher) -> dict[str, Any]:
    """What of the section makes a teacher what it is: training settings do not change a finished model."""
    section = teacher.model_dump(mode="json")
    if not teacher.of_open_clip:
        return {key: section[key] for key in ("name", teacher.own_section)}
    chosen = {key: section[key] for key in ("quickgelu", "preprocess") if section[key] is not None}
    return {"name": teacher.name, **chosen}
