"""Fidelity: how well a student preserves the teacher's geometry, on the same images and texts of a task.

| metric                          | of                                                                              |
|---------------------------------|---------------------------------------------------------------------------------|
| image_cosine, text_cosine       | mean cosine of the two embeddings of an example                                 |
| image_rank, text_rank           | Spearman's correlation of the similarities of all pairs of images, of texts     |
| cross_rank                      | the same of every image with every text                                         |
| image_cka, text_cka             | linear CKA (Kornblith et al., 2019): 1 where one space is a rotation of the other|
| image_cka_debiased, text_…      | the same from unbiased HSIC (Song et al., 2012): plain CKA nears 1 for *any* two |
|                                 | models when there are fewer examples than dimensions; this one nears 0          |

Texts are the class embeddings of a classification task, or the first captions of the images compared. Cosines need
equal widths; otherwise the student's trained projections are applied, or they are undefined.

Intervals: a correlation over n² pairs has n independent parts, not n². So each score is returned as n influence values
with the score as their mean (the projection of a U-statistic on single examples; for CKA, jackknife values). They are
bootstrapped like any outcomes, and two students are compared in pairs, example by example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprd.statistics.outcomes import Outcomes

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
FEWEST = 5  # the debiased estimate needs four, with one left out


class UndefinedError(Exception):
    """A metric has no value for these embeddings; the message gives the reason."""


@dataclass(frozen=True)
class Fidelity:
    """Scores of a student against its teacher on one task.

    Attributes:
        outcomes: metric → `[n]` influence values; `extra` has the compared rows, `images` and `texts`.
        undefined: metric → reason why it has no value.
    """

    outcomes: Outcomes
    undefined: Mapping[str, str] = field(default_factory=dict)


def sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 to n - 1, ascending, determined by the arguments alone."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size=most, replace=False))


def compare(
    student: Mapping[str, Rows],
    teacher: Mapping[str, Rows],
    *,
    text_key: str,
    images: NDArray[np.int64],
    texts: NDArray[np.int64],
    paired: bool,
) -> Fidelity:
    """Compare two files of embeddings (see `embed.embed`) of the same task.

    Args:
        student, teacher: name → `[rows, dim]`, L2-normalised; the student may have `projected.<name>`.
        text_key: `text`, or `class.<protocol>`.
        images, texts: rows to compare.
        paired: text i belongs to image i (captions): the two form one example.
    """
    values: dict[str, NDArray[np.float32]] = {}
    undefined: dict[str, str] = {}

    towers = {"image": ("image", images), "text": (text_key, texts)}
    own = {tower: _double(student[key][rows]) for tower, (key, rows) in towers.items()}
    other = {tower: _double(teacher[key][rows]) for tower, (key, rows) in towers.items()}
    measures: dict[str, Callable[[], Floats]] = {}
    for tower, (key, rows) in towers.items():
        s, t = own[tower], other[tower]
        aligned = _double(student[f"projected.{key}"][rows]) if f"projected.{key}" in student else None
        measures[f"{tower}_cosine"] = partial(cosines, s, t, aligned)
        measures[f"{tower}_rank"] = partial(within_rank, s, t)
        measures[f"{tower}_cka"] = partial(cka, s, t)
        measures[f"{tower}_cka_debiased"] = partial(cka, s, t, debiased=True)
    measures["cross_rank"] = partial(
        cross_rank, (own["image"], own["text"]), (other["image"], other["text"]), paired=paired
    )
    for metric, measure in sorted(measures.items()):
        try:
            values[metric] = measure().astype(np.float32)
        except UndefinedError as why:
            undefined[metric] = str(why)
    extra: dict[str, NDArray[Any]] = {"images": images.astype(np.int32), "texts": texts.astype(np.int32)}
    return Fidelity(Outcomes(values, {}, extra), undefined)


def cosines(student: Floats, teacher: Floats, projected: Floats | None = None) -> Floats:
    """`[n]` cosines of the student's (projected, if given) and the teacher's embedding of each example.

    Raises:
        UndefinedError: the widths differ and there is no projection.
    """
    own = projected if projected is not None else student
    if own.shape[1] != teacher.shape[1]:
        raise UndefinedError(
            f"the student has {student.shape[1]} dimensions, the teacher {teacher.shape[1]}, "
            "and the student was trained without projections"
        )
    return np.asarray((own * teacher).sum(axis=1))


def within_rank(student: Floats, teacher: Floats) -> Floats:
    """`[n]` influence values of Spearman's correlation of the similarities of all pairs i ≠ j."""
    n = len(student)
    _enough(n)
    upper = np.triu_indices(n, k=1)
    rho, pairs = spearman((student @ student.T)[upper], (teacher @ teacher.T)[upper])
    square = np.zeros((n, n))
    square[upper] = pairs
    rows = (square + square.T).sum(axis=1) / (n - 1)
    return np.asarray(rho + 2 * (rows - rows.mean()))


def cross_rank(student: tuple[Floats, Floats], teacher: tuple[Floats, Floats], *, paired: bool) -> Floats:
    """`[n images]` influence values of Spearman's correlation of the similarities of every image with every text.

    Args:
        student, teacher: (images `[n, dim]`, texts `[m, dim]`).
        paired: text i and image i (n = m) form one example; else the texts are fixed, like classes.
    """
    own, other = student[0] @ student[1].T, teacher[0] @ teacher[1].T
    _enough(len(own))
    rho, pairs = spearman(own.ravel(), other.ravel())
    square = pairs.reshape(own.shape)
    influence = square.mean(axis=1) - square.mean()
    if paired:
        influence = influence + square.mean(axis=0) - square.mean()
    return np.asarray(rho + influence)


def spearman(x: Floats, y: Floats) -> tuple[float, Floats]:
    """Spearman's rank correlation (ties share their mean rank) and the influence of each pair on it, `[n]`, mean 0.

    The influence counts that ranks are estimated too: a pair also moves the ranks of all others.

    Raises:
        UndefinedError: all values of one side are equal.
    """
    n = len(x)
    order_x, order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    u, v = _ranks(x, order_x), _ranks(y, order_y)  # centred, in (-1/2, 1/2)
    spread_u, spread_v = float(u @ u) / n, float(v @ v) / n
    if spread_u == 0 or spread_v == 0:
        raise UndefinedError("all similarities of one model are equal")
    scale = np.sqrt(spread_u * spread_v)
    rho = float(u @ v) / n / scale
    influence = u * v + _above(v, order_x) + _above(u, order_y)
    return rho, np.asarray((influence - influence.mean()) / scale)


def _ranks(values: Floats, order: NDArray[np.int64]) -> Floats:
    """Centred mean ranks in (-1/2, 1/2); runs of equal values share theirs."""
    n = len(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, n))
    ranks = np.empty(n)
    ranks[order] = np.repeat((starts + (sizes - 1) / 2 + 0.5) / n - 0.5, sizes)
    return ranks


def _above(values: Floats, order: NDArray[np.int64]) -> Floats:
    """For each pair: the sum of `values` over the pairs at or above it in `order`, over n."""
    above = np.empty(len(values))
    above[order] = np.cumsum(values[order][::-1])[::-1] / len(values)
    return above


def cka(student: Floats, teacher: Floats, *, debiased: bool = False) -> Floats:
    """`[n]` jackknife values of linear CKA, centred so that their mean is the CKA of all examples.

    Args:
        student: `[n, dim_s]`; teacher: `[n, dim_t]`; centring is done here.
        debiased: use the unbiased estimate of HSIC.

    Raises:
        UndefinedError: too few examples, or one side does not vary.
    """
    n = len(student)
    _enough(n)
    k, l = student @ student.T, teacher @ teacher.T  # noqa: E741
    if debiased:
        np.fill_diagonal(k, 0)
        np.fill_diagonal(l, 0)
    full, left_out = zip(*(_hsic(a, b, debiased) for a, b in ((k, l), (k, k), (l, l))), strict=True)
    tiny = 1e-12 * n * n
    if min(full[1:]) <= tiny or min(part.min() for part in left_out[1:]) <= tiny / 2:
        raise UndefinedError("the embeddings of one model vary too little")
    value = full[0] / np.sqrt(full[1] * full[2])
    values = left_out[0] / np.sqrt(left_out[1] * left_out[2])
    return np.asarray(value + (n - 1) * (values.mean() - values))


def _hsic(k: Floats, l: Floats, debiased: bool) -> tuple[float, Floats]:  # noqa: E741
    """HSIC up to a factor that cancels in CKA: of all n, and `[n]` with each example left out; O(n²)."""
    n = len(k)
    product = k * l
    k_sum, l_sum = k.sum(axis=1), l.sum(axis=1)
    k_ii, l_ii = np.diag(k), np.diag(l)
    rows = product.sum(axis=1)
    trace = rows.sum()
    middle = float(k_sum @ l_sum)
    trace_out = trace - 2 * rows + k_ii * l_ii
    middle_out = middle - l @ k_sum - k @ l_sum + rows - (k_sum - k_ii) * (l_sum - l_ii)
    total_out = (k_sum.sum() - 2 * k_sum + k_ii) * (l_sum.sum() - 2 * l_sum + l_ii)

    def hsic(trace: Any, middle: Any, total: Any, n: int) -> Any:
        if debiased:
            return trace - 2 * middle / (n - 2) + total / ((n - 1) * (n - 2))
        return trace - 2 * middle / n + total / n**2

    full = hsic(trace, middle, k_sum.sum() * l_sum.sum(), n)
    return float(full), hsic(trace_out, middle_out, total_out, n - 1)


def _enough(n: int) -> None:
    if n < FEWEST:
        raise UndefinedError(f"{n} examples are too few (at least {FEWEST})")


def _double(rows: Rows) -> Floats:
    return rows.astype(np.float64)
