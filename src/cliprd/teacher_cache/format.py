"""The cache's files: one safetensors file a shard, float16 rows in the shard's order. Nobody else knows this layout.

    caption_offsets  int32   [n + 1]          captions of sample i are text rows offsets[i] … offsets[i + 1]
    image            float16 [n, views, dim]
    text             float16 [captions, dim]

A caption that occurs twice has its row twice: rows are the payload, and a reader finds them without an index. All the
rest (header and offsets) is below 1 % of the payload for shards of 200 samples and more, of width 256 and more.

The header is written here, not by the safetensors library, whose order of metadata differs from run to run. It holds
under `__metadata__.cliprd` the shard's sha256, the fingerprint of how the rows were made, a digest of the captions that
were embedded with this shard (the others came before it) and the sha256 of the data behind it, so that a file proves by
itself that it is whole and whose it is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliprd import files
from cliprd.data.shards import Shard
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.reading import parse_json

FORMAT = 2
SUFFIX = ".safetensors"
_TYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "caption_offsets": ("I32", np.dtype("<i4")),
    "image": ("F16", np.dtype("<f2")),
    "text": ("F16", np.dtype("<f2")),
}


class Rows(NamedTuple):
    """Teacher embeddings of one shard; row i is sample i.

    Attributes:
        image: `[n, views, dim]` float16, L2-normalised but for rounding.
        text: `[n, most captions of a sample, dim]` float16, likewise; zeros behind a sample's last caption.
        captions: `[n]` int32, how many of `text`'s rows count.
    """

    image: NDArray[np.float16]
    text: NDArray[np.float16]
    captions: NDArray[np.int32]


def file_name(shard: Shard) -> str:
    """The cache file that belongs to a shard."""
    return shard.stem + SUFFIX


def write_rows(
    path: Path,
    image: NDArray[np.float16],
    text: NDArray[np.float16],
    counts: list[int],
    shard: Shard,
    identity: str,
    new: str,
) -> None:
    """Atomically write one shard's rows; equal rows give equal bytes.

    Args:
        image: `[n, views, dim]`. text: `[sum(counts), dim]`. counts: captions of each sample.
        shard: what the rows embed. identity: fingerprint of how they were made.
        new: digest of the captions that were embedded with this shard.
    """
    offsets = np.concatenate([[0], np.cumsum(counts)])
    tensors: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(value, dtype=_TYPES[name][1])
        for name, value in (("caption_offsets", offsets), ("image", image), ("text", text))
    }
    header: dict[str, Any] = {}
    place, data = 0, hashlib.sha256()
    for name, value in tensors.items():
        end = place + value.nbytes
        header[name] = {"dtype": _TYPES[name][0], "shape": list(value.shape), "data_offsets": [place, end]}
        place = end
        data.update(value.data)
    header["__metadata__"] = {"cliprd": _proof(header, data.hexdigest(), shard, identity, new)}
    with atomic_write(path) as file:
        file.write(_serialised(header))
        for value in tensors.values():
            file.write(value.data)


def proven(path: Path, shard: Shard, identity: str) -> str | None:
    """Of a file left by an earlier run that is whole, of this shard, and made in the same way: the digest of the
    captions that were embedded with it; else None."""
    try:
        header, start = _header(path)
        with path.open("rb") as file:
            written = file.read(start)
            data = hashlib.file_digest(file, "sha256").hexdigest()
        tensors = {name: header[name] for name in _TYPES}
        new: str = parse_json(header["__metadata__"]["cliprd"])["new"]
        proof = {"cliprd": _proof(tensors, data, shard, identity, new)}
    except (InputError, KeyError, TypeError, ValueError, OSError):
        return None
    return new if written == _serialised({**tensors, "__metadata__": proof}) else None


def read_rows(path: Path) -> Rows:
    """Memory-map one file: nothing is read before it is used. (`text` is copied where captions differ in number.)

    Raises:
        InputError: not a file of this format.
    """
    tensors = _map(path)
    offsets, image, text = tensors["caption_offsets"], tensors["image"], tensors["text"]
    counts = np.diff(offsets).astype(np.int32)
    most = int(counts.max(initial=0))
    if (counts == most).all():
        padded = text.reshape(len(counts), most, text.shape[1])
    else:
        padded = np.zeros((len(counts), most, text.shape[1]), dtype=text.dtype)
        padded[np.arange(most) < counts[:, None]] = text
    return Rows(image, padded, counts)


def read_text(path: Path) -> NDArray[np.float16]:
    """All caption rows of a file, `[captions, dim]`, memory-mapped."""
    return _map(path)["text"]


def _proof(tensors: dict[str, Any], data: str, shard: Shard, identity: str, new: str) -> str:
    """Whose the file is, and a digest over names, types, shapes and data."""
    content = files.digest({"tensors": tensors, "data": data, "new": new})
    proof = {"format": FORMAT, "shard": shard.sha256, "identity": identity, "new": new, "content": content}
    return files.canonical(proof)


def _serialised(header: dict[str, Any]) -> bytes:
    text = files.canonical(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _map(path: Path) -> dict[str, NDArray[Any]]:
    header, start = _header(path)
    data = np.asarray(np.memmap(path, mode="r", dtype=np.uint8))[start:]  # each row of a memmap would be one, and dear
    try:
        return {
            name: data[slice(*header[name]["data_offsets"])].view(kind).reshape(header[name]["shape"])
            for name, (_, kind) in _TYPES.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}.", _REMEDY) from error


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Header and where the data begins."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is no table")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.", _REMEDY) from error
    return header, 8 + length


_REMEDY = "Delete it and run `cliprd cache` again (or `dvc repro`)."
