"""Reads tensors from files of `torch.save` or `torch.jit.save` without running code in them.

A pickle is a program that reaches other code through `find_class` only. Here `find_class` returns descriptions of
tensors, sets, and for every other name `Unknown`, a dictionary that accepts any call. Nothing is imported and nothing
else is called. So a file may also contain optimiser states, arguments and pickled modules of classes that are not
installed. Tensors are read one at a time, on demand.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_MOST = 2**48  # elements of a tensor: larger than any real one, and valid for torch


class Unreadable(ValueError):
    """The file is damaged, or of an unsupported kind."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file, not read yet. `offset` and `stride` count elements of the storage `key`.

    Raises:
        Unreadable: the shape is impossible.
    """

    key: str
    dtype: torch.dtype
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.numel, self.offset, *self.shape, *self.stride)
        possible = all(isinstance(number, int) and 0 <= number < _MOST for number in numbers)
        if not possible or len(self.shape) != len(self.stride) or math.prod(self.shape) >= _MOST:
            raise Unreadable("a tensor of an impossible shape")

    def __setstate__(self, _: Any) -> None:
        raise Unreadable("a tensor is given a state")


class Unknown(dict[Any, Any]):
    """Represents an object of any class: keeps the items and state of the file, without behaviour."""

    state: Any = None
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, *_: Any) -> None:
        """Ignore items of a list's subclass."""

    add = extend = append


class _Constructor:
    """Builds `Stored` from a pickle's description of a tensor; has no attribute that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, _: Any) -> None:
        raise Unreadable("a function is given a state")


class _Rebuild(_Constructor):
    """`torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, …)`."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored:
        if not isinstance(storage, Stored):
            raise Unreadable("a tensor without its storage")
        return Stored(storage.key, storage.dtype, storage.numel, offset, tuple(shape), tuple(stride))


class _First(_Constructor):
    """`torch._utils._rebuild_parameter(tensor, …)`: the tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


_CALLED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _First(),
    ("torch._utils", "_rebuild_parameter_with_state"): _First(),
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        return _CALLED.get((module, name), Unknown)

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(numel)):
                return Stored(key, dtype, numel, 0, (numel,), (1,))
        return Unknown()


class Archive:
    """An open file of `torch.save` or `torch.jit.save`.

    Attributes:
        content: the saved object, with `Stored` for tensors and `Unknown` for other objects.

    Raises:
        Unreadable: the file is damaged, compressed, or of a machine with another byte order.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
            self._infos = {info.filename: info for info in self._zip.infolist()}
            pickles = [name for name in self._infos if name == "data.pkl" or name.endswith("/data.pkl")]
            if not pickles:
                raise Unreadable("a zip file that torch has not written")
            root = min(pickles, key=len)
            self._folder = root.removesuffix("data.pkl")
            if (order := self._folder + "byteorder") in self._infos and self._bytes(order) != b"little":
                raise Unreadable("written by a machine with another byte order")
            self.content = _Unpickler(io.BytesIO(self._bytes(root))).load()
        except Unreadable:
            raise
        except Exception as error:  # zipfile and pickle raise exceptions of any type on invalid data
            raise Unreadable(" ".join(str(error).split())[:200] or type(error).__name__) from error

    def read(self, stored: Stored) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            Unreadable: its bytes are damaged or missing.
        """
        reach = 1 + sum((size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True))
        reach = stored.offset + (reach if 0 not in stored.shape else 0)
        try:
            data = bytearray(self._bytes(f"{self._folder}data/{stored.key}"))
        except (KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise Unreadable(f"storage {stored.key}: {' '.join(str(error).split())[:200]}") from error
        if len(data) < stored.numel * stored.dtype.itemsize or reach > stored.numel:
            raise Unreadable(f"storage {stored.key} is shorter than its tensor")
        if 0 in stored.shape:
            return torch.empty(stored.shape, dtype=stored.dtype)
        flat = torch.frombuffer(data, dtype=stored.dtype, count=stored.numel)
        return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()

    def _bytes(self, name: str) -> bytes:
        if self._infos[name].compress_type != zipfile.ZIP_STORED:  # torch never compresses; decompression bombs do
            raise Unreadable(f"{name} is compressed")
        return self._zip.read(name)


def module_state(module: Unknown, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Tensors of a pickled `nn.Module` or a TorchScript archive, with `state_dict`'s names."""
    state = module.state if isinstance(module.state, dict) else {}
    tensors: dict[str, Any] = {}
    if depth > 100:
        return tensors
    if isinstance(state.get("_modules"), dict):
        transient = state.get("_non_persistent_buffers_set") or ()
        own = {**_items(state.get("_parameters")), **_items(state.get("_buffers"))}
        own = {name: value for name, value in own.items() if name not in transient and value is not None}
        children = _items(state["_modules"])
    else:  # TorchScript does not mark non-persistent buffers, such as the causal mask
        own = {name: value for name, value in state.items() if isinstance(value, Stored) and name != "attn_mask"}
        own = {name: value for name, value in own.items() if value.shape or value.dtype.is_floating_point}
        children = {name: value for name, value in state.items() if isinstance(value, Unknown)}
    tensors.update({f"{prefix}{name}": value for name, value in own.items()})
    for name, child in children.items():
        if isinstance(child, Unknown):
            tensors.update(module_state(child, f"{prefix}{name}.", depth + 1))
    return tensors


def _items(value: Any) -> dict[str, Any]:
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}
