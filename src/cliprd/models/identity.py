"""What identifies a teacher before it is loaded; no model library is needed to know it."""

from __future__ import annotations

import os
from typing import Any

from cliprd import storage
from cliprd.manifest import digest
from cliprd.params import Teacher

CONFIGS = ("open_clip_config.json", "config.json")  # beside the weights: what decides how they are to be taken


def weights_version(name: str) -> str:
    """What identifies the weights behind a teacher's name; empty where the name alone does: a tag, the aligned one.

    Configs that lie beside a file belong to it.

    Raises:
        InputError: a file in S3 is missing, or one is forbidden. RetryableError: the network or the store failed.
    """
    pretrained = name.split(":", 2)[-1]
    if not (storage.is_s3(pretrained) or os.path.isfile(pretrained)):
        return ""
    version = storage.fingerprints([pretrained])[pretrained]
    configs = [data for config in CONFIGS if (data := storage.read_bytes(beside(pretrained, config))) is not None]
    return digest([version, *(data.decode("latin-1") for data in configs)]) if configs else version


def beside(weights: str, name: str) -> str:
    """The file called `name` in the folder of `weights`, here or in S3."""
    folder, slash, _ = weights.rpartition("/")
    return f"{folder}{slash}{name}"


def shaping(teacher: Teacher) -> dict[str, Any]:
    """What of the section makes a teacher what it is: training settings do not change a finished model."""
    section = teacher.model_dump(mode="json")
    if teacher.name == "aligned":
        return {key: section[key] for key in ("name", "aligned")}
    chosen = {key: section[key] for key in ("quickgelu", "preprocess") if section[key] is not None}
    return {"name": teacher.name, **chosen}
