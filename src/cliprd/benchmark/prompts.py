"""The two protocols: which prompts represent a class, and which captions count.

| protocol | classification, multilabel                                | retrieval                         |
|----------|-----------------------------------------------------------|-----------------------------------|
| standard | the task's own templates (CLIP_benchmark)                 | every caption of an image         |
| paper    | ImageNet's 80 templates for every task (CLIP-KD, CLIP-RD) | the first caption of an image only |

Both use the task's class names unchanged. Image caption selection is the same in both: every caption counts.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import open_clip
from numpy.typing import NDArray

from cliprd.benchmark.tasks import Task

Protocol = Literal["standard", "paper"]


@functools.cache
def imagenet_templates() -> tuple[str, ...]:
    """OpenAI's 80 prompts for ImageNet, with `{c}` for the class name."""
    return tuple(template("{c}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def templates(task: Task, protocol: Protocol) -> tuple[str, ...]:
    """The prompts of a classification task under a protocol."""
    return imagenet_templates() if protocol == "paper" else task.templates


def counted_captions(task: Task, protocol: Protocol) -> NDArray[np.int64]:
    """Which of a task's captions, numbered through all images, count under a protocol."""
    if protocol == "paper" and task.kind == "retrieval":
        return first_captions(task)
    return np.arange(sum(map(len, task.captions)))


def first_captions(task: Task) -> NDArray[np.int64]:
    """`[images]`: the number of each image's first caption."""
    sizes = np.array([len(captions) for captions in task.captions], dtype=np.int64)
    return np.asarray(np.cumsum(sizes) - sizes)


@dataclass(frozen=True)
class Prompts:
    """Every distinct prompt once, and the ensembles that it belongs to.

    Attributes:
        texts: T distinct texts, shortest first: batches of similar lengths need little padding.
        text, group: `[E]`: text `text[e]` belongs to ensemble `group[e]`.
        weight: `[E]`: multiplicity (a template that occurs twice counts twice, as in CLIP_benchmark).
        groups: number of ensembles.
    """

    texts: tuple[str, ...]
    text: NDArray[np.int64]
    group: NDArray[np.int64]
    weight: NDArray[np.float64]
    groups: int


def class_prompts(classnames: Sequence[str], by_protocol: Mapping[Protocol, Sequence[str]]) -> Prompts:
    """Ensemble p·C + c is class c under the p-th protocol; a text shared by several is embedded once."""
    members: Counter[tuple[str, int]] = Counter()
    for p, prompts in enumerate(by_protocol.values()):
        for c, name in enumerate(classnames):
            members.update((template.replace("{c}", name), p * len(classnames) + c) for template in prompts)
    texts = shortest_first({text for text, _ in members})
    index = {text: i for i, text in enumerate(texts)}
    edges = sorted((index[text], group, count) for (text, group), count in members.items())
    text, group, weight = (np.array(column) for column in zip(*edges, strict=True))
    return Prompts(texts, text, group, weight.astype(np.float64), len(by_protocol) * len(classnames))


def shortest_first(texts: set[str]) -> tuple[str, ...]:
    """Sorted by length, then by text: a deterministic order."""
    return tuple(sorted(texts, key=lambda text: (len(text), text)))
