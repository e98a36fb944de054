"""Resolves a teacher's name to architecture, activation and preprocessing, before weights are read.

Equal weights with another activation or preprocessing are another network, which the weights do not reveal. open_clip's
configuration of the pretrained tag decides; for a file the configs beside it, then the value that all tags of the
architecture share; if they differ, the parameters must give it.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from cliprd import storage
from cliprd.errors import InputError, ParamsError
from cliprd.models import config as configs
from cliprd.models.identity import beside, refuse_missing
from cliprd.models.image_spec import ImageSpec
from cliprd.params import Preprocess, Teacher
from cliprd.reading import parse_json

_KEYS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class ResolvedTeacher:
    """A teacher's name, resolved.

    Attributes:
        name: as in `teacher.name`.
        arch, weights: its parts; `weights` is a tag or a file.
        tag: open_clip's configuration of the tag; empty for a file.
        config: the model config, with the resolved activation.
        image: the image preprocessing.
        quick_gelu: whether the activation is QuickGELU.
        decided_by: origin of `quick_gelu` and of `preprocess`.
    """

    name: str
    arch: str
    weights: str
    tag: Mapping[str, Any]
    config: configs.Config
    image: ImageSpec
    quick_gelu: bool
    decided_by: dict[str, str]

    def line(self) -> str:
        """The decisions as text."""
        activation = "QuickGELU" if self.quick_gelu else "no QuickGELU"
        quick, pictures = self.decided_by["quick_gelu"], self.decided_by["preprocess"]
        said = "" if quick == pictures else f" ({quick})"
        return f"{activation}{said}; pictures: {_shown(self.image.to_dict())} ({pictures})"


def resolve(teacher: Teacher) -> ResolvedTeacher:
    """Resolve the section `teacher`; weights are neither read nor downloaded.

    Raises:
        ParamsError: an unknown architecture or tag (the message suggests similar ones), a missing choice, or one that
            contradicts the weights' configuration.
        InputError: a weights file does not exist. RetryableError: the network or the store failed.
    """
    _, arch, weights = teacher.name.split(":", 2)
    config = configs.named(arch)
    tag = open_clip.get_pretrained_cfg(arch, weights)
    if not tag and not _exists(weights):
        _refuse(arch, weights)
    beside_weights = {} if tag else _configs_beside(weights)
    quick, by_quick = _quick_gelu(teacher, arch, config, tag, beside_weights)
    preprocess, by_preprocess = _preprocess(teacher, arch, tag, beside_weights)
    config["quick_gelu"] = quick
    return ResolvedTeacher(
        name=teacher.name,
        arch=arch,
        weights=weights,
        tag=tag,
        config=config,
        image=ImageSpec.from_dict({**preprocess, "size": configs.image_size(config)}),
        quick_gelu=quick,
        decided_by={"quick_gelu": by_quick, "preprocess": by_preprocess},
    )


def cached(source: ResolvedTeacher) -> Path | None:
    """The local path of a tag's weights in open_clip's cache, or None if they are not downloaded."""
    if hub := source.tag.get("hf_hub"):
        repository, file = os.path.split(hub)
        names = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        names = [name.removesuffix(".bin") + ".safetensors" for name in names if name.endswith(".bin")] + names
        for name in names:
            if isinstance(path := huggingface_hub.try_to_load_from_cache(repository, name), str):
                return Path(path)
        return None
    path = Path(os.path.expanduser("~/.cache/clip"), os.path.basename(source.tag["url"]))
    return path if path.is_file() else None


def _quick_gelu(
    teacher: Teacher, arch: str, config: configs.Config, tag: Mapping[str, Any], beside_weights: Mapping[str, Any]
) -> tuple[bool, str]:
    named = bool(config.get("quick_gelu"))
    tags = _by_value(arch, lambda facts: bool(facts.get("quick_gelu")))
    if tag:
        return _checked(teacher.quickgelu, named or bool(tag.get("quick_gelu")), f"tag {teacher.name}", "quickgelu")
    if named:  # an architecture with QuickGELU in its own config
        return _checked(teacher.quickgelu, True, f"architecture {arch}", "quickgelu")
    if "quick_gelu" in beside_weights:
        return _checked(
            teacher.quickgelu, bool(beside_weights["quick_gelu"]), str(beside_weights["quick_gelu_from"]), "quickgelu"
        )
    if teacher.quickgelu is not None:
        return teacher.quickgelu, "teacher.quickgelu"
    if len(tags) > 1:
        raise ParamsError(
            f"teacher.quickgelu must be given for {teacher.name}: the file does not say whether it was trained with "
            f"QuickGELU, and of the tags of {arch} {_some(tags[True])} were, {_some(tags[False])} were not.",
            "Set it to true for weights of OpenAI, MetaCLIP and DFN, else to what the training had.",
        )
    return next(iter(tags), False), _agreed(arch, tags)


def _preprocess(
    teacher: Teacher, arch: str, tag: Mapping[str, Any], beside_weights: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    parameter = _preprocess_parameter(teacher, arch)
    tags = _by_value(arch, lambda facts: json.dumps(_plain(facts)))
    if tag:
        return _checked(parameter, _plain(tag), f"tag {teacher.name}", "preprocess")
    if "preprocess" in beside_weights:
        return _checked(
            parameter, _plain(beside_weights["preprocess"]), str(beside_weights["preprocess_from"]), "preprocess"
        )
    if parameter is not None:
        return parameter, "teacher.preprocess"
    if len(tags) > 1:
        values = "; ".join(f"{_some(names)}: {_shown(json.loads(value))}" for value, names in tags.items())
        raise ParamsError(
            f"teacher.preprocess must be given for {teacher.name}: the file does not say how its images were "
            f"preprocessed, and the tags of {arch} disagree ({values}).",
            "Set it to a tag with the same preprocessing, or to {mean, std, interpolation, resize_mode}.",
        )
    return (json.loads(next(iter(tags))) if tags else _plain({})), _agreed(arch, tags)


def _checked(parameter: Any, value: Any, source: str, key: str) -> tuple[Any, str]:
    """Check that a parameter, if given, does not contradict the known value."""
    if parameter is not None and parameter != value:
        shown = [_shown(x) if isinstance(x, dict) else str(x).lower() for x in (parameter, value)]
        raise ParamsError(
            f"teacher.{key} is {shown[0]}, but {source} says {shown[1]}.", f"Remove or correct teacher.{key}."
        )
    return value, source


def _preprocess_parameter(teacher: Teacher, arch: str) -> dict[str, Any] | None:
    parameter = teacher.preprocess
    if parameter is None:
        return None
    if isinstance(parameter, Preprocess):
        return _plain(parameter.model_dump())
    if facts := open_clip.get_pretrained_cfg(arch, parameter):
        return _plain(facts)
    known = open_clip.list_pretrained_tags_by_model(arch)
    near = difflib.get_close_matches(parameter.lower(), known, n=1, cutoff=0.4)
    raise ParamsError(
        f"teacher.preprocess = '{parameter}' is no tag of {arch}.",
        (f"Did you mean '{near[0]}'? " if near else "")
        + f"Give one of {', '.join(known) or 'none'}, or {{mean, std, interpolation, resize_mode}}.",
    )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's preprocessing with defaults filled in, in a comparable form."""
    merged = merge_preprocess_dict(PreprocessCfg(), dict(facts))
    preprocess = {key: merged[key] for key in _KEYS}
    for key in ("mean", "std"):
        value = preprocess[key]
        preprocess[key] = [float(x) for x in (value if isinstance(value, list | tuple) else [value] * 3)]
    if preprocess["interpolation"] == "random":  # for training only; open_clip evaluates with bicubic
        preprocess["interpolation"] = "bicubic"
    return preprocess


def _shown(preprocess: Mapping[str, Any]) -> str:
    mean, std = (", ".join(f"{x:.3g}" for x in preprocess[key]) for key in ("mean", "std"))
    return f"mean {mean}, std {std}, {preprocess['interpolation']}, {preprocess['resize_mode']}"


def _by_value(arch: str, value: Any) -> dict[Any, list[str]]:
    """`value` of a tag's configuration → tags of `arch`."""
    tags: dict[Any, list[str]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(arch):
        tags.setdefault(value(open_clip.get_pretrained_cfg(arch, tag)), []).append(tag)
    return tags


def _agreed(arch: str, tags: Mapping[Any, list[str]]) -> str:
    names = [name for group in tags.values() for name in group]
    if not names:
        return f"open_clip's default: {arch} has no pretrained tag"
    return f"all {len(names)} tags of {arch} agree" if len(names) > 1 else f"{arch}'s only tag, {names[0]}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _configs_beside(weights: str) -> dict[str, Any]:
    """The configs beside the weights: open_clip's `open_clip_config.json`, or Hugging Face's `config.json`.

    Raises:
        InputError: one is no JSON.
    """
    beside_weights: dict[str, Any] = {}
    own = _json(weights, "open_clip_config.json")
    if isinstance(model := own.get("model_cfg"), Mapping):
        beside_weights |= {
            "quick_gelu": bool(model.get("quick_gelu")),
            "quick_gelu_from": "open_clip_config.json beside it",
        }
    if isinstance(preprocess := own.get("preprocess_cfg"), Mapping):
        beside_weights |= {"preprocess": dict(preprocess), "preprocess_from": "open_clip_config.json beside it"}
    theirs = {} if own else _json(weights, "config.json")
    if theirs.get("model_type") == "clip" and isinstance(theirs.get("vision_config"), Mapping):
        activation = theirs["vision_config"].get("hidden_act", "quick_gelu")  # transformers' own default
        beside_weights |= {"quick_gelu": activation == "quick_gelu", "quick_gelu_from": "config.json beside it"}
    return beside_weights


def _json(weights: str, name: str) -> dict[str, Any]:
    data = storage.read_bytes(beside(weights, name))
    if data is None:
        return {}
    try:
        content = parse_json(data)
    except ValueError as error:
        raise InputError(f"{beside(weights, name)} is no JSON: {error}.", "Correct or remove it.") from error
    return content if isinstance(content, dict) else {}


def _exists(weights: str) -> bool:
    if storage.is_s3(weights):
        storage.etag(weights)
        return True
    return Path(weights).exists()


def _refuse(arch: str, weights: str) -> None:
    refuse_missing(weights)
    tags = open_clip.list_pretrained_tags_by_model(arch)
    near = difflib.get_close_matches(weights.lower(), tags, n=1, cutoff=0.4)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    elsewhere = open_clip.list_pretrained_models_by_tag(weights)
    also = f"It is one of {', '.join(elsewhere[:5])}. " if elsewhere else ""
    raise ParamsError(
        f"teacher.name: '{weights}' is neither a pretrained tag of {arch} nor a file.",
        f"{hint}{also}Tags of {arch}: {', '.join(tags) or 'none'}.",
    )
