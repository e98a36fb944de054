"""Examples for the report: a few predictions and retrievals of the model, with the pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliprd.benchmark.embed import Embeddings
from cliprd.benchmark.fidelity import sample
from cliprd.benchmark.prompts import Protocol, counted_captions, first_captions
from cliprd.benchmark.retrieval import nearest
from cliprd.benchmark.tasks import Task
from cliprd.data.images import decode
from cliprd.files import write_json
from cliprd.report.results import shown_classnames
from cliprd.statistics.outcomes import Outcomes

COUNT, TOP, SIDE = 24, 5, 128


def write_examples(
    folder: Path, task: Task, embeddings: Embeddings, outcomes: Mapping[Protocol, Outcomes], *, seed: int
) -> None:
    """Write `examples/<task>.json`, its pictures inside; every model gets the same (docs/formats.md)."""
    chosen = sample(len(task), COUNT, seed)
    shown = set(chosen.tolist())
    protocols: dict[str, Any] = {}
    for protocol, result in outcomes.items():
        if task.classnames:
            protocols[protocol] = {
                "images": _classified(task, embeddings["image"], embeddings[f"class.{protocol}"], result, chosen)
            }
        elif task.kind == "image_caption_selection":
            protocols[protocol] = {"images": _selected(task, embeddings, chosen)}
        else:
            protocols[protocol] = _retrieved(task, protocol, embeddings, result, chosen)
            for queries in protocols[protocol].values():
                shown |= {entry["image"] for query in queries for entry in query["retrieved"]}
    pictures = {str(number): base64.b64encode(_picture(data)).decode() for number, data in task.images(shown)}
    write_json(
        folder / "examples" / f"{task.name}.json", {"kind": task.kind, "pictures": pictures, "protocols": protocols}
    )


def _classified(
    task: Task,
    images: NDArray[np.float32],
    classes: NDArray[np.float32],
    result: Outcomes,
    chosen: NDArray[np.int64],
) -> list[dict[str, Any]]:
    """For an image of several classes, any of them is a correct prediction."""
    names = shown_classnames(task.classnames)
    entries = []
    for i in chosen.tolist():
        own = np.flatnonzero(task.labels[i]).tolist() if task.kind == "multilabel" else [int(task.labels[i])]
        predicted = [
            {"label": names[c], "score": _score(images[i], classes[c]), "correct": c in own}
            for c in result.extra["predicted"][i].tolist()
        ]
        entries.append(_answered(task, i, ", ".join(names[c] for c in own) or "(no class)", predicted))
    return entries


def _selected(task: Task, embeddings: Embeddings, chosen: NDArray[np.int64]) -> list[dict[str, Any]]:
    firsts = first_captions(task)
    entries = []
    for i in chosen.tolist():
        own = task.captions[i]
        rows = embeddings["text"][firsts[i] : firsts[i] + len(own)]
        order = nearest(embeddings["image"][i : i + 1], rows, TOP)[0].tolist()
        predicted = [
            {"label": own[c], "score": _score(embeddings["image"][i], rows[c]), "correct": c == 0} for c in order
        ]
        entries.append(_answered(task, i, own[0], predicted))
    return entries


def _answered(task: Task, image: int, label: str, predicted: list[dict[str, Any]]) -> dict[str, Any]:
    correct = predicted[0]["correct"]
    return {"image": image, "key": task.keys[image], "label": label, "correct": correct, "predicted": predicted}


def _retrieved(
    task: Task, protocol: Protocol, embeddings: Embeddings, result: Outcomes, chosen: NDArray[np.int64]
) -> dict[str, list[dict[str, Any]]]:
    """Both directions, for the chosen images: queries are the first caption of each, and the image."""
    captions = [caption for own in task.captions for caption in own]
    sizes = np.array([len(own) for own in task.captions])
    owners = np.repeat(np.arange(len(task)), sizes)
    counted = counted_captions(task, protocol)
    column = {int(caption): i for i, caption in enumerate(counted)}
    images, texts = embeddings["image"], embeddings["text"]
    firsts = (np.cumsum(sizes) - sizes)[chosen]
    by_text = nearest(texts[firsts], images, TOP)
    by_image = counted[nearest(images[chosen], texts[counted], TOP)]

    def retrieved_image(caption: int, image: int) -> dict[str, Any]:
        own = int(owners[caption])
        return {"image": image, "score": _score(texts[caption], images[image]), "correct": image == own}

    def retrieved_caption(image: int, caption: int) -> dict[str, Any]:
        own = int(owners[caption])
        score = _score(images[image], texts[caption])
        return {"caption": captions[caption], "image": own, "score": score, "correct": own == image}

    return {
        "text_to_image": [
            {
                "caption": captions[caption],
                "image": image,
                "rank": int(result.extra["text_to_image_rank"][column[caption]]),
                "retrieved": [retrieved_image(caption, number) for number in row],
            }
            for image, caption, row in _zip(chosen, firsts, by_text)
        ],
        "image_to_text": [
            {
                "image": image,
                "rank": int(result.extra["image_to_text_rank"][image]),
                "captions": list(task.captions[image]),
                "retrieved": [retrieved_caption(image, number) for number in row],
            }
            for image, _, row in _zip(chosen, firsts, by_image)
        ],
    }


def _zip(*columns: NDArray[np.int64]) -> Sequence[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _score(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return round(float(a.astype(np.float64) @ b.astype(np.float64)), 4)


def _picture(data: bytes) -> bytes:
    image = decode(data)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=4)
    return buffer.getvalue()
