"""open_clip model configs, by name or inline, checked before a model is built."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from copy import deepcopy
from importlib import resources
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from cliprd import params
from cliprd.errors import ParamsError

Config = dict[str, Any]

_TOP = {
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text",
    "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale",
}  # fmt: skip
_REQUIRED = ("embed_dim", "vision_cfg", "text_cfg")
_VISION_POOLS = ("tok", "avg")  # open_clip's "none" gives no single embedding
_TEXT_POOLS = ("argmax", "eos", "first", "last")
_VISION = {field.name for field in dataclasses.fields(CLIPVisionCfg)}
_TEXT = {field.name for field in dataclasses.fields(CLIPTextCfg)}


def shipped() -> dict[str, Config]:
    """The configs that cliprd ships beside open_clip's own, by name."""
    folder = resources.files("cliprd.models") / "configs"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".json")), key=lambda item: item.name)
    return {item.name.removesuffix(".json"): json.loads(item.read_text(encoding="utf-8")) for item in files}


def named(arch: str) -> Config:
    """The config called `arch`: cliprd's own first, then open_clip's built-in ones.

    Raises:
        ParamsError: no such name; the message suggests similar ones.
    """
    own = shipped()
    if arch in own:
        return own[arch]
    if arch in open_clip.list_models():
        return dict(open_clip.get_model_config(arch))
    names = [*own, *open_clip.list_models()]
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(arch.casefold(), folded, n=3, cutoff=0.5)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Shipped with cliprd: {', '.join(own)}."
    raise ParamsError(
        f"No architecture is called '{arch}'.",
        f"{hint} `python -c 'import open_clip; print(open_clip.list_models())'` lists open_clip's.",
    )


def student_config(student: params.Student) -> Config:
    """The model config that `params.student` means, checked by `check`."""
    config = deepcopy(student.config) if student.config is not None else named(student.arch or student.ARCH)
    where = "student.config" if student.config is not None else f"student.arch = {student.arch}"
    check(config, where=where)
    return config


def check(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse what open_clip would take and silently misread, or stumble over deep inside.

    Raises:
        ParamsError: names the key, what is wrong and what is allowed.
    """
    for key in _REQUIRED:
        if key not in config:
            raise ParamsError(
                f"{where} lacks '{key}'.", "An open_clip model config has embed_dim, vision_cfg and text_cfg."
            )
    if "multimodal_cfg" in config:
        raise ParamsError(
            f"{where} is a CoCa, which has a third tower that writes captions: it can be a teacher, not a student.",
            "Take an architecture of two towers, such as ViT-S-16.",
        )
    _known(config, _TOP, where)
    for key, allowed in (("vision_cfg", _VISION), ("text_cfg", _TEXT)):
        if not isinstance(config[key], Mapping):
            raise ParamsError(f"{where}.{key} is a {type(config[key]).__name__}, not a mapping.")
        _known(config[key], allowed, f"{where}.{key}")
        if config[key].get("output_tokens"):
            raise ParamsError(
                f"{where}.{key}.output_tokens is on.", "Turn it off: a tower gives one embedding an input."
            )
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    for key, value in (
        ("embed_dim", config["embed_dim"]),
        ("vision_cfg.width", vision.get("width", 768)),
        ("vision_cfg.patch_size", vision.get("patch_size") or 16),
        ("vision_cfg.head_width", vision.get("head_width", 64)),
        ("text_cfg.width", text.get("width", 512)),
        ("text_cfg.heads", text.get("heads", 8)),
        ("text_cfg.layers", text.get("layers", 12)),
        ("text_cfg.context_length", text.get("context_length", 77)),
        ("text_cfg.vocab_size", text.get("vocab_size", 49408)),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ParamsError(f"{where}.{key} = {value!r}: it must be a whole number above 0.")
    _check_vision(vision, f"{where}.vision_cfg")
    _check_text(text, f"{where}.text_cfg")
    if text.get("embed_cls") and not config.get("custom_text"):  # open_clip.CLIP builds it, but fails on the first text
        raise ParamsError(f"{where}.text_cfg.embed_cls needs custom_text.", f"Set {where}.custom_text to true.")


def image_size(config: Mapping[str, Any]) -> int:
    """Side of the square that the image tower takes."""
    size = config["vision_cfg"].get("image_size", 224)
    return int(size[0] if isinstance(size, list | tuple) else size)


def _known(mapping: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in mapping:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
            hint = f"Did you mean '{near[0]}'?" if near else f"Allowed here: {', '.join(sorted(allowed))}."
            raise ParamsError(f"{where} has the unknown key '{key}'.", hint)


def _check_vision(vision: Mapping[str, Any], where: str) -> None:
    size = vision.get("image_size", 224)
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if (
        len(sides) != 2
        or sides[0] != sides[1]
        or isinstance(size, bool)
        or not isinstance(sides[0], int)
        or sides[0] < 1
    ):
        raise ParamsError(f"{where}.image_size = {size!r}: it must be one whole number above 0 (images are square).")
    if vision.get("timm_model_name") or isinstance(vision.get("layers"), list | tuple):
        return  # not open_clip's ViT: checked by its constructor
    layers = vision.get("layers", 12)
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise ParamsError(f"{where}.layers = {layers!r}: it must be a whole number above 0.")
    if (pool := vision.get("pool_type", "tok")) not in _VISION_POOLS:
        raise ParamsError(f"{where}.pool_type = {pool!r}: allowed are {', '.join(_VISION_POOLS)}.")
    patch, width, head = vision.get("patch_size", 16), vision.get("width", 768), vision.get("head_width", 64)
    if sides[0] % patch:
        raise ParamsError(
            f"{where}.image_size = {sides[0]} is no multiple of patch_size = {patch}: pixels would be lost."
        )
    if width % head:
        raise ParamsError(f"{where}.width = {width} is no multiple of head_width = {head}.")


def _check_text(text: Mapping[str, Any], where: str) -> None:
    if text.get("hf_model_name"):
        return
    if (pool := text.get("pool_type", "argmax")) not in _TEXT_POOLS:
        raise ParamsError(f"{where}.pool_type = {pool!r}: allowed are {', '.join(_TEXT_POOLS)}.")
    if text.get("width", 512) % text.get("heads", 8):
        raise ParamsError(f"{where}.width = {text.get('width', 512)} is no multiple of heads = {text.get('heads', 8)}.")
    if text.get("context_length", 77) < 3:
        raise ParamsError(f"{where}.context_length is too short for a word.", "Start, one word and end need 3.")
    if not text.get("hf_tokenizer_name") and text.get("vocab_size", 49408) < 49408:
        raise ParamsError(
            f"{where}.vocab_size = {text['vocab_size']} is below the 49408 of open_clip's tokenizer.",
            "Set it to 49408.",
        )
