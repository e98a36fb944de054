"""One way to open a model: the folder says whether it is a teacher or a student."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError
from cliprd.models.encoder import CONFIG_FILE, Encoder, resolve_device
from cliprd.models.image_spec import ImageSpec
from cliprd.models.plugin import plugin_of
from cliprd.models.student import load_student
from cliprd.models.teacher import build_teacher
from cliprd.params import Params, Preprocess, Teacher
from cliprd.reading import read_json


def load_encoder(folder: Path, params: Params, *, device: torch.device | None = None) -> Encoder:
    """The frozen model in a folder of the stage `teacher` or `distill`, every file checked against the manifest.

    Args:
        folder: the stage's output.
        params: `distill.device` places the model where `device` is not given.
        device: where to put the weights.

    Raises:
        InputError: the folder is unfinished, damaged or of another stage; or a teacher's weights are not those that
            the folder was made with, or its plug-in is not registered here.
        RetryableError: an open_clip teacher's weights could not be downloaded.
        MachineError: the teacher's packages are not installed.
    """
    found = manifest.verify(folder)
    place = device or resolve_device(params.distill.device)
    if found.stage == "distill":
        return load_student(folder, device=place)
    if found.stage != "teacher":
        raise InputError(
            f"{folder} was made by stage '{found.stage}': there is no model in it.",
            "Give a folder made by `cliprd teacher` or `cliprd distill`.",
        )
    said = read_json(folder / CONFIG_FILE)
    remedy = "Restore what was there, or delete the folder and run `cliprd teacher` again."
    section = Teacher.model_validate_json(json.dumps(found.params["teacher"]))
    try:
        if section.of_open_clip:
            teacher: Encoder = _of_open_clip(said, place)
        else:
            teacher = plugin_of(section.name).load(folder, section.own_settings, place)
    except ParamsError as error:
        raise InputError(f"{folder} no longer fits its weights: {error.problem}", f"{error.remedy} {remedy}") from error
    if teacher.weights_sha256 != said["weights_sha256"]:
        raise InputError(
            f"The weights of {said['id']} (or their activation) are no longer those that {folder} was made with "
            f"(sha256 {said['weights_sha256'][:12]}…, now {teacher.weights_sha256[:12]}…).",
            remedy,
        )
    if teacher.image != ImageSpec.from_dict(said["image"]):
        raise InputError(f"{folder} was made with another preprocessing than {said['id']} has.", remedy)
    return teacher


def _of_open_clip(said: Mapping[str, Any], device: torch.device) -> Encoder:
    image = {key: said["image"][key] for key in Preprocess.model_fields if key in said["image"]}
    section = {
        "name": said["id"],
        "quickgelu": said.get("quick_gelu"),
        "preprocess": image if len(image) == 4 else None,
    }
    return build_teacher(Teacher.model_validate_json(json.dumps(section)), device=device)
