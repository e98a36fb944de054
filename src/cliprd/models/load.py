"""One way to open a model: the folder says whether it is a teacher or a student."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from cliprd.artifact import manifest
from cliprd.demo_teacher import aligned
from cliprd.errors import InputError, ParamsError
from cliprd.models.encoder import Encoder, resolve_device
from cliprd.models.image_spec import ImageSpec
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
        InputError: the folder is unfinished, damaged or of another stage; or an open_clip teacher's weights are not
            those that the folder was made with.
        RetryableError: an open_clip teacher's weights could not be downloaded.
        EnvironmentError_: the demo teacher's packages are not installed.
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
    said = read_json(folder / aligned.CONFIG_FILE)
    if said["id"] == aligned.ID:
        return aligned.load(folder, device=place)
    remedy = "Restore what was there, or delete the folder and run `cliprd teacher` again."
    image = {key: said["image"][key] for key in Preprocess.model_fields if key in said["image"]}
    section = {
        "name": said["id"],
        "quickgelu": said.get("quick_gelu"),
        "preprocess": image if len(image) == 4 else None,
    }
    try:
        teacher = build_teacher(Teacher.model_validate_json(json.dumps(section)), device=place)
    except ParamsError as error:
        raise InputError(f"{folder} no longer fits its weights: {error.problem}", remedy) from error
    if teacher.weights_sha256 != said["weights_sha256"]:
        raise InputError(
            f"The weights of {said['id']} (or their activation) are no longer those that {folder} was made with "
            f"(sha256 {said['weights_sha256'][:12]}…, now {teacher.weights_sha256[:12]}…).",
            remedy,
        )
    if teacher.image != ImageSpec.from_dict(said["image"]):
        raise InputError(f"{folder} was made with another preprocessing than {said['id']} has.", remedy)
    return teacher
