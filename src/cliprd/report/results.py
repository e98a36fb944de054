"""The page's data: plain results, computed elsewhere. All text in them is untrusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEACHER = "teacher"
LONGEST = 200  # characters of a class name on the page


def shown_classnames(names: Sequence[str]) -> tuple[str, ...]:
    """Class names for the page: an empty one, as in some of CLIP_benchmark's sets, is shown by its number; a long one
    is cut."""
    shown = (name or f"(class {number}, no name)" for number, name in enumerate(names))
    return tuple(name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for name in shown)


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """One training: column name → values, all of equal length, including `step`; NaN for missing values."""

    method: str
    seed: int
    columns: Mapping[str, Sequence[float]]
    terms: tuple[str, ...]
    scales: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A thumbnail: `uri` is a data: URI, `caption` the data set's text, `right` whether it is a correct answer."""

    uri: str
    caption: str
    right: bool = True


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One model's first pictures for a query; `rank` is the 1-based rank of the right picture among all."""

    model: str
    pictures: tuple[Picture, ...]
    rank: int


@dataclass(frozen=True, kw_only=True)
class Query:
    """A caption, the picture it belongs to, and each model's ranking. `kind` groups queries under one heading."""

    task: str
    kind: str
    caption: str
    target: Picture
    gallery: int
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One model's answer for a picture."""

    model: str
    said: str
    right: bool


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A picture of a classification task, its class and the models' answers."""

    task: str
    label: str
    picture: Picture
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Classification of one task by several models.

    Attributes:
        counts: model → `[C, C]` counts, rows true, columns predicted; empty when there are too many classes to draw.
        pairs: model → the most frequent mistakes as (true, predicted, count, of).
    """

    task: str
    protocol: str
    classes: tuple[str, ...]
    counts: Mapping[str, NDArray[np.int64]]
    pairs: Mapping[str, Sequence[tuple[str, str, int, int]]]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Similarities of the same pairs by teacher and student: `teacher`, `student` are `[pairs]` each.

    `spearman` and `cka` are the benchmark's, None if undefined.
    """

    method: str
    towers: str
    teacher: NDArray[np.float32]
    student: NDArray[np.float32]
    spearman: float | None
    cka: float | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Class means on the plane of the teacher's two principal directions.

    Attributes:
        teacher: `[C, 2]`.
        students: model → `[C, 2]`, rotated and scaled onto the teacher's.
        kept: model → share of the teacher's variance that the rotated means explain, over all directions.
    """

    task: str
    classes: tuple[str, ...]
    teacher: NDArray[np.float64]
    students: Mapping[str, NDArray[np.float64]]
    kept: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A timing: the median of `count` measurements, with the lowest and the highest."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a model: counts and sizes, and measurements, which vary between runs.

    Attributes:
        architecture: equal for models that share their speeds.
        weights_bytes, onnx_bytes: sizes of the files of a student.
        images_per_second, texts_per_second, latency_ms: of the architecture; latency of one image.
        training_images_per_second, training_seconds: of the method's trainings.
    """

    architecture: str = ""
    parameters: int
    image_macs: int | None = None
    text_macs: int | None = None
    weights_bytes: int | None = None
    onnx_bytes: int | None = None
    images_per_second: Measured | None = None
    texts_per_second: Measured | None = None
    latency_ms: Measured | None = None
    training_images_per_second: Measured | None = None
    training_seconds: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page. `comparison` is the content of comparison.json."""

    comparison: Mapping[str, Any]
    histories: Sequence[TrainingCurves] = ()
    queries: Sequence[Query] = ()
    sightings: Sequence[Sighting] = ()
    confusions: Sequence[Confusion] = ()
    geometry: Sequence[Geometry] = ()
    layouts: Sequence[Layout] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    device: str = ""
    params: str = ""
    commands: Sequence[str] = ()
