"""One benchmark task in CLIP_benchmark's WebDataset layout, checked completely before any model runs.

<task>/dataset_type.txt                           the kind (see `KINDS`); absent: classification
<task>/classnames.txt                             line n names class n - 1    (classification, multilabel)
<task>/zeroshot_classification_templates.txt      one prompt a line, `{c}` is the class name              (as well)
<task>/test/nshards.txt  <task>/test/0.tar …      KEY.webp|png|jpg|…  with  KEY.cls (number), KEY.npy (0 or 1 for each
                                                  class) or KEY.txt (one caption a line)
"""

from __future__ import annotations

import difflib
import io
import itertools
import os
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliprd.benchmark.task_folders import CLASSES, SPLIT, TEMPLATES, TYPE, fingerprint
from cliprd.data.endings import EXTENSIONS
from cliprd.data.tar import Member, entries
from cliprd.errors import InputError

Kind = Literal["classification", "multilabel", "retrieval", "image_caption_selection"]
LABELS: dict[Kind, str] = {
    "classification": "cls",
    "multilabel": "npy",
    "retrieval": "txt",
    "image_caption_selection": "txt",
}
KINDS: dict[str, Kind] = {
    **{kind: kind for kind in LABELS},
    "zeroshot_classification": "classification",  # CLIP_benchmark's names of its tasks
    "zeroshot_retrieval": "retrieval",
}
LONGEST = 255 - len(".safetensors")  # bytes of a task's name, which names files of results
IMAGES = frozenset(extension.removeprefix(".") for extension in EXTENSIONS)
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # WebDataset: the key ends at the first dot of the file's name
# CLIP_benchmark writes these as `retrieval` and recognises them by name: each image's first caption is right, the
# others are wrong.
_SELECTION = re.compile(r"(wds_)?sugar_?crepe")


class UnsupportedTaskError(Exception):
    """The task's kind is not supported; the message names the kind."""


class ByteRange(NamedTuple):
    """A range of bytes in a tar, which is identified by its number."""

    tar: int
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """A test set.

    Attributes:
        name: of its folder.
        kind: of `KINDS`.
        folder: its folder; symbolic links are followed.
        tars: its tars, in order; image i is the i-th image in them.
        states: size and modification time of each tar when it was loaded.
        keys: `[n]` sample keys.
        places: `[n]` byte ranges of the images.
        classnames, templates: empty for kinds with captions. A class name may be empty; templates contain `{c}`.
        labels: `[n]` int64 class numbers; multilabel: `[n, C]` bool; empty for kinds with captions.
        captions: of each image, at least one; image_caption_selection: the right one, then the wrong ones; empty for
            kinds with classes.
        fingerprint: sha256 of all its files.
    """

    name: str
    kind: Kind
    folder: Path
    tars: tuple[Path, ...]
    states: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]
    places: tuple[ByteRange, ...]
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    labels: NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    captions: tuple[tuple[str, ...], ...] = ()
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.keys)

    def images(self, wanted: Collection[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """The encoded images as (number, bytes) in order, one at a time; only those in `wanted` if given.

        Raises:
            InputError: a tar has changed since the task was loaded.
        """
        numbers = range(len(self)) if wanted is None else sorted(wanted)
        for tar, group in itertools.groupby(numbers, lambda number: self.places[number].tar):
            path = self.tars[tar]
            with path.open("rb") as file:
                if _state(file) != self.states[tar]:
                    raise InputError(f"{path} changed while it was read.", "Run the stage again.")
                for number in group:
                    span = self.places[number]
                    file.seek(span.offset)
                    yield number, file.read(span.size)


def load_task(folder: Path, name: str | None = None) -> Task:
    """Load a task: all names, labels and captions, but no image.

    Args:
        folder: the task's folder. name: of the task; by default the folder's.

    Raises:
        UnsupportedTaskError: its kind is not one of `KINDS`.
        InputError: a file is missing or damaged; the message names file, sample and what to do.
    """
    name = name or folder.name
    _check_name(folder, name)
    kind = _kind(folder, name)
    tars = _tars(folder)
    states = tuple(_state(path) for path in tars)
    content = fingerprint(folder)
    samples = _samples(tars, LABELS[kind])
    if not samples:
        raise InputError(f"Task {folder} has no images.", f"Its tars in {folder / SPLIT} are empty.")
    keys = tuple(key for key, _, _ in samples)
    contents = [(key, content) for key, _, content in samples]
    common: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "folder": folder,
        "tars": tars,
        "states": states,
        "keys": keys,
        "places": tuple(span for _, span, _ in samples),
        "fingerprint": content,
    }
    if LABELS[kind] == "txt":
        least = 2 if kind == "image_caption_selection" else 1
        return Task(captions=tuple(_captions(folder, *each, least) for each in contents), **common)
    labels: NDArray[Any]
    if kind == "multilabel":
        rows = [_multilabel(folder, *each) for each in contents]
        classnames = _classnames(folder, max(map(len, rows)))
        labels = _stacked(folder, keys, rows, len(classnames))
    else:
        numbers = [_label(folder, *each) for each in contents]
        classnames = _classnames(folder, max(numbers) + 1)
        labels = _in_range(folder, keys, numbers, len(classnames))
    return Task(classnames=classnames, templates=_templates(folder), labels=labels, **common)


def _check_name(folder: Path, name: str) -> None:
    """Refuse names that cannot be UTF-8 file names, and `mean`, which results use for the mean over tasks."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(f"Task {folder}: its name is not UTF-8.", "Rename the folder.") from error
    if size > LONGEST:
        raise InputError(f"Task {folder}: its name has {size} bytes, more than {LONGEST}.", "Rename the folder.")
    if name == "mean":
        raise InputError(
            f"Task {folder}: the name 'mean' is reserved for the mean over all tasks.", "Rename the folder."
        )


def _kind(folder: Path, name: str) -> Kind:
    path = folder / TYPE
    if not path.is_file():
        return "classification"
    text = _text(path).strip().lower()
    if not text:
        raise InputError(f"{path} is empty.", f"Write the task's kind: {', '.join(LABELS)}.")
    if kind := KINDS.get(text):
        return "image_caption_selection" if text == "retrieval" and _SELECTION.match(name.lower()) else kind
    if near := difflib.get_close_matches(text, KINDS, n=1, cutoff=0.8):
        raise InputError(f"{path} holds {text[:40]!r}.", f"Did you mean '{near[0]}'?")
    raise UnsupportedTaskError(f"tasks of type {text[:40]!r} are not supported")


def _tars(folder: Path) -> tuple[Path, ...]:
    path = folder / SPLIT / "nshards.txt"
    if not path.is_file():
        raise InputError(f"Task {folder}: {path} is missing.", "It holds the number of tars in that folder.")
    text = _text(path).strip()
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise InputError(f"{path} holds {text[:40]!r}, not a number of tars.", "Write how many tars there are.")
    tars: list[Path] = []
    for number in range(int(text)):
        tars.append(folder / SPLIT / f"{number}.tar")
        if not tars[-1].is_file():
            raise InputError(f"{tars[-1]} is missing; {path} says there are {text} tars.", "Download the task again.")
    further = sorted(each.name for each in (folder / SPLIT).glob("*.tar") if each.stem.isdigit() and each not in tars)
    if further:
        raise InputError(
            f"{path} says there are {text} tars, but there is {further[0]} too.",
            "Correct the number, or remove tars that an earlier export left.",
        )
    return tuple(tars)


def _state(file: Path | IO[bytes]) -> tuple[int, int]:
    status = os.stat(file if isinstance(file, Path) else file.fileno())
    return status.st_size, status.st_mtime_ns


def _samples(tars: Sequence[Path], kind: str) -> list[tuple[str, ByteRange, bytes]]:
    """(key, image, content of the `kind` file) of every sample; its files must be adjacent, as in WebDataset."""
    samples: list[tuple[str, ByteRange, bytes]] = []
    for number, path in enumerate(tars):
        key = ""
        parts: dict[str, Any] = {}
        seen: set[str] = set()
        for info, data in _members(path):
            name = _NAME.match(info.name)
            if name is None or info.name.rpartition("/")[2].startswith((".", "__")):  # WebDataset's metadata: __x__
                continue
            if name[1] != key:
                if parts:
                    samples.append(_sample(path, key, parts, kind))
                if name[1] in seen:
                    raise InputError(f"{path}: files of sample '{name[1]}' are not adjacent.", "Pack it again.")
                key, parts = name[1], {}
                seen.add(key)
            extension = name[2].lower()
            if extension in IMAGES:
                if "image" in parts:
                    raise InputError(f"{path}: sample '{key}' has two images.", "Each sample has one.")
                parts["image"] = ByteRange(number, info.offset_data, info.size)
            elif extension == kind:
                parts[kind] = data()
            else:
                parts[extension] = b""
        if parts:
            samples.append(_sample(path, key, parts, kind))
    return samples


_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """The regular files of an uncompressed tar, in order, each with a function that reads it now."""
    remedy = "Fetch or pack the task again."
    try:
        with path.open("rb") as file:
            start = file.read(6)
            for mark, program in _COMPRESSED.items():
                if start.startswith(mark):
                    raise InputError(
                        f"{path} is compressed by {program}.", f"Unpack it ({program} -d) under the same name."
                    )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", tarinfo=Member) as tar:
                for info in entries(tar, str(path)):
                    if info.issparse() or info.islnk() or info.issym():
                        what = "is stored as a sparse file" if info.issparse() else f"points to {info.linkname}"
                        raise InputError(f"{path} is damaged: {info.name} {what}.", remedy)
                    if info.isreg():
                        yield info, lambda info=info: tar.extractfile(info).read()  # type: ignore[misc, union-attr]
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}.", remedy) from error


def _sample(path: Path, key: str, parts: dict[str, Any], kind: str) -> tuple[str, ByteRange, bytes]:
    if "image" not in parts:
        raise InputError(f"{path}: sample '{key}' has no image (it has {', '.join(parts)}).", "Pack the task again.")
    if kind not in parts:
        raise InputError(
            f"{path}: sample '{key}' has no .{kind} file (it has {', '.join(parts)}).",
            f"A task of this kind needs {key}.{kind}.",
        )
    return key, parts["image"], parts[kind]


def _captions(folder: Path, key: str, text: bytes, least: int) -> tuple[str, ...]:
    try:
        lines = tuple(line for line in text.decode("utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise InputError(f"Task {folder}: captions of '{key}' are not UTF-8.", "Pack the task again.") from error
    if not lines:
        raise InputError(f"Task {folder}: '{key}.txt' has no caption.", "Every image needs one caption or more.")
    if len(lines) < least:
        raise InputError(
            f"Task {folder}: '{key}.txt' has one caption.",
            "Write the right caption and then the wrong ones, one a line.",
        )
    return lines


def _label(folder: Path, key: str, text: bytes) -> int:
    if not re.fullmatch(rb"\s*-?[0-9]{1,18}\s*", text):
        raise InputError(f"Task {folder}: '{key}.cls' holds {text[:20]!r}, not a class number.", "Pack the task again.")
    return int(text)


def _in_range(folder: Path, keys: Sequence[str], numbers: Sequence[int], classes: int) -> NDArray[np.int64]:
    for key, number in zip(keys, numbers, strict=True):
        if not 0 <= number < classes:
            raise InputError(
                f"Task {folder}: '{key}.cls' holds class {number}, but {CLASSES} has {classes} (0 to {classes - 1}).",
                f"Correct the label or {folder / CLASSES}.",
            )
    return np.array(numbers, dtype=np.int64)


def _multilabel(folder: Path, key: str, data: bytes) -> NDArray[np.bool_]:
    """`[C]`: which classes the image shows."""
    try:
        row = np.load(io.BytesIO(data), allow_pickle=False)
        good = row.ndim == 1 and row.dtype.kind in "biuf" and len(row) > 0 and bool(np.isin(row, (0, 1)).all())
    except (ValueError, OSError, EOFError, AttributeError):
        good = False
    if not good:
        raise InputError(
            f"Task {folder}: '{key}.npy' is not a row of 0 or 1 for each class.", "Pack the task again with numpy.save."
        )
    return np.asarray(row, dtype=np.bool_)


def _stacked(folder: Path, keys: Sequence[str], rows: Sequence[NDArray[np.bool_]], classes: int) -> NDArray[np.bool_]:
    for key, row in zip(keys, rows, strict=True):
        if len(row) != classes:
            raise InputError(
                f"Task {folder}: '{key}.npy' has {len(row)} classes, but {CLASSES} has {classes}.",
                f"Correct the label or {folder / CLASSES}.",
            )
    return np.stack(rows)


def _classnames(folder: Path, least: int) -> tuple[str, ...]:
    """One class a line; a line may be empty, as in some tasks of CLIP_benchmark.

    Args:
        least: number of classes that the labels need. Further empty lines at the end are dropped.
    """
    path = folder / CLASSES
    if not path.is_file():
        raise InputError(f"{path} is missing.", "Write one class name a line: line n names class n-1.")
    names = _lines(path)
    if not any(names):
        raise InputError(f"{path} is empty; line n names class n-1.", "Write one class name a line.")
    while len(names) > least and not names[-1]:
        names.pop()
    return tuple(names)


def _templates(folder: Path) -> tuple[str, ...]:
    path = folder / TEMPLATES
    if not path.is_file():
        raise InputError(f"{path} is missing.", "Write one prompt a line, for example: a photo of a {c}.")
    templates = tuple(filter(None, _lines(path)))
    if not templates:
        raise InputError(f"{path} is empty.", "Write one prompt a line, for example: a photo of a {c}.")
    for template in templates:
        if "{c}" not in template:
            raise InputError(
                f"{path}: the prompt {template[:60]!r} has no {{c}} for the class name.", "Correct the file."
            )
    return templates


def _lines(path: Path) -> list[str]:
    """Stripped lines, split at line feeds alone as in CLIP_benchmark, so that class numbers agree."""
    return [line.strip() for line in io.StringIO(_text(path))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8.", "Save it as UTF-8.") from error
