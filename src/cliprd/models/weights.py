"""Finds the tensors of a CLIP in a weights file, checks them against a model, and loads them.

Supported are safetensors and files of `torch.save` or `torch.jit.save`, detected by content. A state dict may be
anywhere in the file, beside optimisers and arguments, with prefixes of `DistributedDataParallel`, FSDP, Lightning and
`torch.compile`, and with names of open_clip, Hugging Face's `CLIPModel` or Apple's MobileCLIP. No code of the file
runs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from open_clip.convert import convert_state_dict, load_big_vision_weights
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import Tensor, nn

from cliprd.errors import InputError
from cliprd.models import hf_clip
from cliprd.models.pickled import Archive, Stored, Unknown, Unreadable, module_state

_ANCHOR = "logit_scale"  # a key that every CLIP has, and hardly any other model
_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_REMEDY = "Give weights of that architecture, or the architecture of the weights."


@dataclass(frozen=True)
class StateValue:
    """A value in a state dict: `meta` has its shape and type, or is None if it is no tensor; `read` reads it."""

    meta: Tensor | None
    read: Callable[[], Tensor]


Part = dict[str, StateValue]


@dataclass
class WeightsFile:
    """Content of a weights file.

    Attributes:
        parts: path in the file → state dict of a CLIP; "" is the top level.
        keys: first keys of the top level, for messages.
    """

    path: Path
    parts: dict[str, Part] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def load(model: nn.Module, path: Path, *, arch: str, resize: bool) -> str:
    """Load the weights in `path` into `model`.

    Args:
        model: an open_clip model.
        path: of the weights.
        arch: its name, for messages.
        resize: fit positional embeddings of another length, as open_clip does.

    Returns:
        A note which of several state dicts was loaded; empty if there is one.

    Raises:
        InputError: the file is damaged or of an unknown kind, or its weights do not fit; the message names the first
            such key.
    """
    if path.suffix == ".npz":
        _load_big_vision(model, path, arch)
        return ""
    file = open_weights(path)
    part, note = _choose(file, model, arch, resize=resize)
    try:
        state = _converted({name: entry.read() for name, entry in file.parts[part].items()}, model, resize=resize)
    except (Unreadable, safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path} holds values that are not finite, in '{name}'.", "Give an undamaged checkpoint.")
    model.load_state_dict(state, strict=True)
    return note


def check(model: nn.Module, path: Path, *, arch: str, resize: bool) -> None:
    """Check names, shapes and types as `load` does, without reading tensors.

    Raises:
        InputError: as `load`.
    """
    if path.suffix != ".npz":
        _choose(open_weights(path), model, arch, resize=resize)


def open_weights(path: Path) -> WeightsFile:
    """Describe the content of `path`.

    Raises:
        InputError: it is a folder, damaged, or of an unsupported kind.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a weights file.", _folder_remedy(path))
    try:
        with path.open("rb") as file:
            start = file.read(256)
        if start[:4] == b"PK\x03\x04":
            archive = Archive(path)
            return _described(path, archive.content, archive.read)
        if start[8:9] == b"{":
            return _safetensors(path)
        if start[:1] == b"\x80":
            return _legacy(path)
    except (Unreadable, safetensors.SafetensorError, OSError, EOFError) as error:
        raise _damaged(path, error) from error
    raise InputError(f"{path} is neither safetensors nor a file of torch.save: {_kind(start)}.", _kind_remedy(start))


def _kind(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, the weights are elsewhere"
    if start.lstrip()[:1] == b"<":
        return "it is a web page"
    if start.lstrip()[:1] == b"{":
        return "it is JSON, such as the index of a checkpoint in several files"
    return f"it begins with {start[:8].hex(' ')}"


def _kind_remedy(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "Download them with `git lfs pull`."
    return "Give one safetensors file, or one file of torch.save: docs/teachers.md."


def _folder_remedy(path: Path) -> str:
    if (path / "zero_to_fp32.py").is_file():
        return "It is a DeepSpeed checkpoint: convert it to one file with its zero_to_fp32.py."
    if (path / ".metadata").is_file() or list(path.glob("*.distcp")):
        return (
            "It is a distributed checkpoint: convert it to one file with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`."
        )
    files = sorted(p.name for p in path.iterdir() if p.suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
    return f"Name a file in it: {', '.join(files[:5])}." if files else "Name the file."


def _damaged(path: Path, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(f"{path} is damaged or cannot be read: {reason}.", "Download or save it again.")


def _safetensors(path: Path) -> WeightsFile:
    with safetensors.safe_open(path, "pt") as file:
        names = list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        content = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}

    def entry(name: str, dtype: str, shape: tuple[int, ...]) -> StateValue:
        def read() -> Tensor:
            with safetensors.safe_open(path, "pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor

        return StateValue(torch.empty(shape, dtype=_FLOATS.get(dtype, torch.int64), device="meta"), read)

    part = {name: entry(name, *facts) for name, facts in content.items()}
    return WeightsFile(path, dict(_split("", part)), names)


def _legacy(path: Path) -> WeightsFile:
    """A file in torch's format before 1.6, read by torch's safe loader."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's message advises to disable the safe mode
        raise Unreadable(
            "written in torch's format before 1.6, with more than tensors in it, or no torch file; save its state dict "
            "again with a newer torch"
        ) from error
    return _described(path, content, lambda tensor: tensor)


def _described(path: Path, content: Any, read: Callable[[Any], Tensor]) -> WeightsFile:
    def entry(value: Any) -> StateValue:
        if isinstance(value, Stored):
            return StateValue(torch.empty(value.shape, dtype=value.dtype, device="meta"), lambda: read(value))
        if isinstance(value, Tensor):
            return StateValue(value.to("meta"), lambda: read(value))
        return StateValue(None, lambda: read(value))

    first = (
        content.state if isinstance(content, Unknown) and isinstance(content.state, dict) and not content else content
    )
    file = WeightsFile(path, keys=[str(key) for key in first][:5] if isinstance(first, dict) else [])
    for where, values in _state_dicts(content):
        file.parts.update(_split(where, {name: entry(value) for name, value in values.items()}))
    return file


def _state_dicts(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """All mappings in `content` with a tensor named like a CLIP's logit scale, except those of optimisers."""
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", content)]
    while pending:
        where, value = pending.pop()
        if id(value) in seen or where.startswith("optim"):
            continue
        seen.add(id(value))
        if isinstance(value, Unknown) and isinstance(value.state, dict):
            state = module_state(value)
            if any(_is_anchor(name) for name in state):
                yield where, state
                continue
            pending.append((where, value.state))
        if isinstance(value, dict):
            names = {str(name): item for name, item in value.items()}
            if any(_is_anchor(name) and isinstance(item, Stored | Tensor) for name, item in names.items()):
                yield where, names
                continue
            pending += [(f"{where}.{name}".lstrip("."), item) for name, item in reversed(names.items())]
        elif isinstance(value, list | tuple):
            pending += [(f"{where}[{i}]", item) for i, item in enumerate(value)]


def _is_anchor(name: str) -> bool:
    return name == _ANCHOR or name.endswith("." + _ANCHOR)


def _split(where: str, part: Part) -> Iterator[tuple[str, Part]]:
    """Remove wrappers' prefixes from names; one part for each prefix with a CLIP."""
    part = {_WRAPPERS.sub("", name): entry for name, entry in part.items()}
    prefixes = [name.removesuffix(_ANCHOR) for name in part if _is_anchor(name)]
    strays = {name: entry for name, entry in part.items() if not name.startswith(tuple(prefixes))}
    for prefix in prefixes:
        deeper = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        own = {
            name.removeprefix(prefix): entry
            for name, entry in part.items()
            if name.startswith(prefix) and not name.startswith(deeper)
        }
        yield (f"{where}.{prefix[:-1]}".strip(".") if len(prefixes) > 1 else where), {**strays, **own}


def _choose(file: WeightsFile, model: nn.Module, arch: str, *, resize: bool) -> tuple[str, str]:
    """The part that fits, and a note if there are several.

    Raises:
        InputError: none fits, or the choice between several is ambiguous.
    """
    several = re.search(r"-[0-9]+-of-[0-9]+\.", file.path.name)
    remedy = "It is one of several files: join them first, as docs/teachers.md shows." if several else _REMEDY
    if not file.parts:
        shown = ", ".join(f"'{key}'" for key in file.keys[:3]) or "none"
        raise InputError(
            f"{file.path} holds no CLIP: no tensor in it is called '{_ANCHOR}' (its first keys: {shown}).", remedy
        )
    misfits = {part: _misfit(entries, model, arch, resize=resize) for part, entries in file.parts.items()}
    fitting = [part for part, misfit in misfits.items() if misfit is None]
    if not fitting:
        part, misfit = next(iter(misfits.items()))
        where = f" (in '{part}')" if part else ""
        raise InputError(f"{file.path} does not hold weights of {arch}: {misfit}{where}.", remedy)
    plain = [part for part in fitting if "ema" not in part.lower()] if len(fitting) > 1 else fitting
    if len(plain) != 1:
        raise InputError(
            f"{file.path} holds several models that fit {arch}: {', '.join(repr(part) for part in fitting)}.",
            "Save the intended one as a file of its own.",
        )
    if len(file.parts) == 1:
        return plain[0], ""
    others = ", ".join(f"'{part}'" for part in file.parts if part != plain[0])
    return plain[0], f"weights '{plain[0]}' of the file (not {others})"


def _misfit(part: Part, model: nn.Module, arch: str, *, resize: bool) -> str | None:
    """The first key that does not fit, or None."""
    if odd := next((name for name, entry in part.items() if entry.meta is None), None):
        return f"'{odd}' is no tensor"
    try:
        described = {name: entry.meta for name, entry in part.items() if entry.meta is not None}
        state = _converted(described, model, resize=resize)
    except Exception as error:  # open_clip's converters fail on names that they know in part
        return f"its names are of another kind ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
    expected = model.state_dict()
    unexpected = next((name for name in state if name not in expected), None)
    for name, tensor in expected.items():
        if name not in state:
            return f"'{name}' is missing" + (f", '{unexpected}' is unexpected" if unexpected else "")
        if state[name].shape != tensor.shape:
            return f"'{name}' is {list(state[name].shape)}, expected is {list(tensor.shape)}"
        if tensor.is_floating_point() and state[name].dtype not in _FLOATS.values():
            return f"'{name}' is no floating-point tensor: it is quantised, or no weight"
    return f"'{unexpected}' is unexpected" if unexpected else None


def _converted(state: Mapping[str, Tensor], model: nn.Module, *, resize: bool) -> dict[str, Tensor]:
    """The state with the names of `model`, with the same corrections as open_clip's `load_checkpoint`."""
    converted = hf_clip.to_open_clip(state) if hf_clip.is_hf_clip(state) else dict(state)
    converted = dict(convert_state_dict(model, converted))
    if "positional_embedding" in converted and not hasattr(model, "positional_embedding"):
        converted = convert_to_custom_text_state_dict(converted)
    for name in (_ANCHOR, "logit_bias"):
        parameter = getattr(model, name, None)
        if name in converted and parameter is not None and converted[name].numel() == 1:
            converted[name] = converted[name].reshape(parameter.shape)
    if getattr(model, "logit_bias", None) is not None and "logit_bias" not in converted and _ANCHOR in converted:
        converted["logit_bias"] = torch.zeros_like(converted[_ANCHOR])  # open_clip's rule; no embedding depends on it
    converted.pop("text.transformer.embeddings.position_ids", None)  # 0, 1, 2, …: older versions saved them
    if resize:
        resize_pos_embed(converted, model)
        resize_text_pos_embed(converted, model)
    return converted


def _load_big_vision(model: nn.Module, path: Path, arch: str) -> None:
    """Google's `.npz` of SigLIP."""
    try:
        load_big_vision_weights(model, str(path))
    except Exception as error:  # exceptions of any type on damaged or other files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} is damaged, or does not hold weights of {arch}: {reason}.", _REMEDY) from error
