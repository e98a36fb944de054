"""Benchmark tasks in CLIP_benchmark's WebDataset layout, checked whole before any model runs.

<task>/classnames.txt                             one class a line                       (classification)
<task>/zeroshot_classification_templates.txt      one prompt a line, `{c}` is the class  (classification)
<task>/dataset_type.txt                           `retrieval`; absent: classification
<task>/test/nshards.txt  <task>/test/0.tar …      KEY.webp|png|jpg|…  with  KEY.cls (number) or KEY.txt (captions)
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliprd import storage
from cliprd.benchmark.tar import members
from cliprd.data.images import EXTENSIONS
from cliprd.errors import InputError, ParamsError
from cliprd.manifest import digest
from cliprd.params import Benchmark

Kind = Literal["classification", "retrieval"]
CLASSES, TEMPLATES, TYPE, SPLIT = "classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt", "test"
IMAGES = frozenset(extension.removeprefix(".") for extension in EXTENSIONS)
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # WebDataset: the key ends at the first dot of the file's name


class Place(NamedTuple):
    """Bytes of a tar, by its number."""

    tar: int
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """A test set.

    Attributes:
        name: of its folder.
        kind: `classification` or `retrieval`.
        folder: where it lies; links are followed.
        tars: its tars, in order; image i is the i-th image in them.
        states: size and time of change of each tar when it was read.
        keys: `[n]` sample keys.
        places: `[n]` where the images lie.
        classnames, templates: of a classification task, else empty. Templates hold `{c}` for the class name.
        labels: `[n]` int64 class numbers; empty for retrieval.
        captions: the captions of each image, at least one; empty for classification.
        fingerprint: sha256 of all its files.
    """

    name: str
    kind: Kind
    folder: Path
    tars: tuple[Path, ...]
    states: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]
    places: tuple[Place, ...]
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
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
                    place = self.places[number]
                    file.seek(place.offset)
                    yield number, file.read(place.size)


def load_tasks(root: Path, names: Sequence[str] | None = None) -> tuple[Task, ...]:
    """The tasks under `root`, by name in alphabetical order, or those in `names`, in that order.

    Raises:
        ParamsError: a name is not there; the message has the nearest one.
        InputError: the folder or a task in it is missing, empty or damaged; the message names file, sample and cure.
    """
    return tuple(load_task(folder) for folder in _folders(root, names))


def _folders(root: Path, names: Sequence[str] | None) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"benchmark.tasks: folder {root} does not exist.", "Set benchmark.tasks in params.yaml.")
    if (root / SPLIT).is_dir():
        raise InputError(f"benchmark.tasks: {root} is itself a task.", f"Set benchmark.tasks to {root.parent}.")
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if broken := [p.name for p in root.iterdir() if p.is_symlink() and not p.exists()]:
        raise InputError(f"{root / broken[0]} is a link to nothing.", "Mend or remove it.")
    if not found:
        raise InputError(f"benchmark.tasks: {root} holds no task folders.", "Each task is a folder: see the README.")
    for name in names or ():
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1, cutoff=0.4)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise ParamsError(f"benchmark.names: no task '{name}' in {root}.", f"{hint}There are: {', '.join(found)}.")
    return [root / name for name in (dict.fromkeys(names) if names is not None else found)]


def versions(section: Benchmark, tasks: Sequence[Task] | None = None) -> dict[str, str]:
    """Task → what identifies its content, without loading it; of tasks in S3 the ETags, without bringing them here.

    Args:
        section: whose tasks. tasks: as loaded of it, where they are.

    Raises:
        ParamsError: a name is not there. InputError: a task is damaged. RetryableError: the network or store failed.
    """
    if not storage.is_s3(section.tasks):
        if tasks is not None:
            return {task.name: task.fingerprint for task in tasks}
        return {folder.name: _fingerprint(folder) for folder in _folders(Path(section.tasks), section.names)}
    found = storage.versions(section.tasks)
    names = sorted({name.split("/")[0] for name in found if "/" in name})
    if absent := [name for name in section.names or names[:1] or ("any",) if name not in names]:
        raise ParamsError(f"{section.tasks} has no task '{absent[0]}'.", f"It has {', '.join(names) or 'none'}.")
    return {
        task: digest({name: version for name, version in found.items() if name.startswith(f"{task}/")})
        for task in section.names or names
    }


def check(section: Benchmark) -> None:
    """Load the tasks and forget them; those in S3 are not brought here for it.

    Raises:
        ParamsError, InputError: see `load_tasks`.
    """
    if not storage.is_s3(section.tasks):
        load_tasks(Path(section.tasks), section.names)


def load_task(folder: Path) -> Task:
    """One task; see `load_tasks`. Reads all names, labels and captions, and no image."""
    _check_name(folder)
    kind = _kind(folder)
    tars = _tars(folder)
    states = tuple(_state(path) for path in tars)
    fingerprint = _fingerprint(folder)
    samples = _samples(tars, "txt" if kind == "retrieval" else "cls")
    if not samples:
        raise InputError(f"Task {folder} has no images.", f"Its tars in {folder / SPLIT} are empty.")
    keys = tuple(key for key, _, _ in samples)
    common: dict[str, Any] = {
        "name": folder.name,
        "folder": folder,
        "tars": tars,
        "states": states,
        "keys": keys,
        "places": tuple(place for _, place, _ in samples),
        "fingerprint": fingerprint,
    }
    if kind == "retrieval":
        return Task(kind=kind, captions=tuple(_captions(folder, key, text) for key, _, text in samples), **common)
    classnames = _classnames(folder)
    labels = np.array([_label(folder, key, text, len(classnames)) for key, _, text in samples], dtype=np.int64)
    return Task(kind=kind, classnames=classnames, templates=_templates(folder), labels=labels, **common)


def _check_name(folder: Path) -> None:
    """A name goes into results, file names and metrics, which are UTF-8 and have a `mean` of their own."""
    try:
        folder.name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"Task {folder}: its name is not UTF-8.", "Rename the folder.") from error
    if folder.name == "mean":
        raise InputError(f"Task {folder}: results call the mean over all tasks so.", "Rename the folder.")


def _fingerprint(folder: Path) -> str:
    parts = [folder / name for name in (CLASSES, TEMPLATES, TYPE, f"{SPLIT}/nshards.txt") if (folder / name).is_file()]
    files = storage.fingerprints(str(path) for path in (*parts, *_tars(folder)))
    return digest({os.path.relpath(path, folder): content for path, content in files.items()})


def _kind(folder: Path) -> Kind:
    path = folder / TYPE
    text = _text(path).strip().lower() if path.is_file() else "classification"
    if text == "retrieval":
        return "retrieval"
    if text == "classification":
        return "classification"
    raise InputError(f"{path}: tasks of type '{text}' are not supported.", "Use `retrieval` or `classification`.")


def _tars(folder: Path) -> tuple[Path, ...]:
    path = folder / SPLIT / "nshards.txt"
    if not path.is_file():
        raise InputError(f"Task {folder}: {path} is missing.", "It holds the number of tars in that folder.")
    text = _text(path).strip()
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{path} holds {text[:40]!r}, not a number of tars.", "Write how many tars there are.")
    tars = tuple(folder / SPLIT / f"{i}.tar" for i in range(int(text)))
    for tar in tars:
        if not tar.is_file():
            raise InputError(f"{tar} is missing; {path} says there are {text} tars.", "Fetch the task again.")
    return tars


def _state(of: Path | IO[bytes]) -> tuple[int, int]:
    found = os.stat(of if isinstance(of, Path) else of.fileno())
    return found.st_size, found.st_mtime_ns


def _samples(tars: Sequence[Path], kind: str) -> list[tuple[str, Place, bytes]]:
    """(key, image, content of the `kind` file) of every sample; its files stand together, as WebDataset wants."""
    samples: list[tuple[str, Place, bytes]] = []
    for number, path in enumerate(tars):
        key = ""
        parts: dict[str, Any] = {}
        seen: set[str] = set()
        for info, data in members(path):
            name = _NAME.match(info.name)
            if name is None or name[1].rpartition("/")[2].startswith("_"):
                continue
            if name[1] != key:
                if parts:
                    samples.append(_sample(path, key, parts, kind))
                if name[1] in seen:
                    raise InputError(f"{path}: files of sample '{name[1]}' do not stand together.", "Pack it again.")
                key, parts = name[1], {}
                seen.add(key)
            extension = name[2].lower()
            if extension in IMAGES:
                if "image" in parts:
                    raise InputError(f"{path}: sample '{key}' has two images.", "Each sample has one.")
                parts["image"] = Place(number, info.offset_data, info.size)
            elif extension == kind:
                parts[kind] = data()
            else:
                parts[extension] = b""
        if parts:
            samples.append(_sample(path, key, parts, kind))
    return samples


def _sample(path: Path, key: str, parts: dict[str, Any], kind: str) -> tuple[str, Place, bytes]:
    if "image" not in parts:
        raise InputError(f"{path}: sample '{key}' has no image (it has {', '.join(parts)}).", "Pack the task again.")
    if kind not in parts:
        raise InputError(f"{path}: sample '{key}' has no .{kind} file.", f"A task of this type needs {key}.{kind}.")
    return key, parts["image"], parts[kind]


def _captions(folder: Path, key: str, text: bytes) -> tuple[str, ...]:
    try:
        lines = tuple(line for line in text.decode("utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise InputError(f"Task {folder}: captions of '{key}' are not UTF-8.", "Pack the task again.") from error
    if not lines:
        raise InputError(f"Task {folder}: '{key}.txt' has no caption.", "Every image needs one caption or more.")
    return lines


def _label(folder: Path, key: str, text: bytes, classes: int) -> int:
    try:
        label = int(text)
    except ValueError as error:
        raise InputError(f"Task {folder}: '{key}.cls' holds {text[:20]!r}, not a class number.") from error
    if not 0 <= label < classes:
        raise InputError(
            f"Task {folder}: '{key}.cls' says class {label}, but {CLASSES} has {classes} (0 to {classes - 1}).",
            f"Mend the label or {folder / CLASSES}.",
        )
    return label


def _classnames(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES
    if not path.is_file():
        raise InputError(f"{path} is missing: a classification task needs one class name a line.", f"Write {path}.")
    names = [line.strip() for line in _text(path).rstrip().splitlines()]
    if not names or "" in names:
        where = f"line {names.index('') + 1} is empty" if names else "is empty"
        raise InputError(f"{path}: {where}; line n names class n-1.", "Mend the file.")
    return tuple(names)


def _templates(folder: Path) -> tuple[str, ...]:
    path = folder / TEMPLATES
    if not path.is_file():
        raise InputError(f"{path} is missing.", "Write one prompt a line, for example: a photo of a {c}.")
    templates = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    if not templates:
        raise InputError(f"{path} is empty.", "Write one prompt a line, for example: a photo of a {c}.")
    for template in templates:
        if "{c}" not in template:
            raise InputError(f"{path}: the prompt {template[:60]!r} has no {{c}} for the class name.", "Mend the file.")
    return templates


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8.", "Save it as UTF-8.") from error
