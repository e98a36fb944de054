"""Whole benchmark and student folders in the stages' formats, made of synthetic encoders instead of trained ones.

Outcomes, ranks, examples and fidelity follow from the embeddings, as in a real benchmark; only the embeddings are
drawn: a student's are the teacher's, turned, with the more noise the weaker its method.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from cliprd import files
from cliprd.artifact import manifest
from cliprd.files import atomic_write
from cliprd.statistics.bootstrap import Settings
from cliprd.statistics.outcomes import Outcomes

DIM = 48
NOISE = {
    "teacher": 0.0,
    "baseline": 1.2,
    "clip_kd": 0.55,
    "clip_rd-raw": 0.53,
    "clip_rd-exp": 0.48,
    "vrd": 0.5,
    "xrd": 0.52,
}
TERMS = {
    "baseline": ("task",),
    "clip_kd": ("task", "hrd", "icl", "fd"),
    "vrd": ("task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text"),
    "xrd": ("task", "hrd", "icl", "fd", "xrd"),
    "clip_rd": ("task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text", "xrd"),
}
HOSTILE = '<script>document.title=\'owned\'</script><img src=x onerror="throw 1"> & "quoted"'
ANIMALS = [
    "bird",
    "bus",
    "butterfly",
    "cat",
    "dog",
    "fish",
    "flower",
    "fruit",
    "hat",
    "insect",
    "mammal",
    "plane",
    "sea-shell",
    "ship",
    "train",
    "tree",
    "vehicle",
]
CLOTHES = ["T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


@dataclass(frozen=True)
class Task:
    """A synthetic task. `hardness` is the noise of the teacher itself."""

    name: str
    kind: str
    classes: list[str] | None
    images: int
    hardness: float
    captions: list[tuple[str, int]] = field(default_factory=list)


TEACHER_COST = {
    "parameters": 27_400_000,
    "image_parameters": 4_650_000,
    "text_parameters": 22_700_000,
    "image_macs": 385_000_000,
    "text_macs": 260_000_000,
}
STUDENT_COST = {
    "parameters": 7_480_000,
    "image_parameters": 860_000,
    "text_parameters": 6_600_000,
    "image_macs": 31_000_000,
    "text_macs": 9_700_000,
}


def tasks() -> list[Task]:
    colours = ["red", "green", "blue", "yellow", "purple", "orange", "teal", "pink", "brown", "grey", "black", "olive"]
    shapes = ["circle", "square", "triangle", "star", "ring"]
    captions = []
    for image in range(120):
        text = f"a {colours[image % 12]} {shapes[image // 12 % 5]}, number {image}"
        captions.append((HOSTILE if image == 3 else text, image))
        if image % 3 == 0:
            captions.append((f"{shapes[image // 12 % 5]} in {colours[image % 12]}", image))
    return [
        Task("photos", "classification", ANIMALS, 299, 0.5),
        Task("fashion", "classification", CLOTHES, 500, 0.7),
        Task("emoji", "classification", [f"object {i}" for i in range(58)] + ["<b>bold</b>", "a & b"], 360, 0.55),
        Task("captions", "retrieval", None, 120, 0.4, captions),
    ]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(task: Task, model: str, seed: int):
    """The image and text embeddings of a task, and the images' labels."""
    rng = np.random.default_rng(zlib.crc32(task.name.encode()))
    if task.kind == "classification":
        texts = unit(rng.normal(size=(len(task.classes), DIM)) + 0.6 * rng.normal(size=DIM))
        labels = rng.integers(0, len(task.classes), task.images)
        centres = texts[labels]
    else:
        labels = np.array([image for _, image in task.captions])
        scene = unit(rng.normal(size=(task.images, DIM)) + 0.6 * rng.normal(size=DIM))
        texts = unit(scene[labels] + 0.12 * rng.normal(size=(len(labels), DIM)))
        centres = scene
    images = unit(centres + 0.25 * task.hardness * rng.normal(size=centres.shape) + 0.35 * rng.normal(size=DIM))
    noise = NOISE[model]
    if noise:
        own = np.random.default_rng((zlib.crc32(f"{task.name}{model}".encode()), seed))
        turn, _ = np.linalg.qr(own.normal(size=(DIM, DIM)))
        images = unit((images + 0.16 * noise * own.normal(size=images.shape)) @ turn)
        texts = unit((texts + 0.16 * noise * own.normal(size=texts.shape)) @ turn)
    return images, texts, labels.astype(np.int32)


def picture(task: Task, index: int) -> Image.Image:
    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    colours = ["#d33", "#2a2", "#33d", "#db2", "#82b", "#e80", "#199", "#e7a", "#852", "#888", "#111", "#783"]
    colour, shape = colours[index % 12], index // 12 % 5
    inner = index % 7
    box = (14 + inner, 14, 82, 82 - inner)
    if shape == 0:
        draw.ellipse(box, fill=colour)
    elif shape == 1:
        draw.rectangle(box, fill=colour)
    elif shape == 2:
        draw.polygon([(48, 12 + inner), (84, 80), (12, 80)], fill=colour)
    elif shape == 3:
        corners = [(math.sin(math.pi * k / 5), -math.cos(math.pi * k / 5)) for k in range(10)]
        radii = [40 if k % 2 == 0 else 16 + inner for k in range(10)]
        draw.polygon([(48 + r * x, 50 + r * y) for (x, y), r in zip(corners, radii, strict=True)], fill=colour)
    else:
        draw.ellipse(box, outline=colour, width=12)
    return image


def _classify(task, images, texts, labels):
    similarity = images @ texts.T
    order = np.argsort(-similarity, axis=1, kind="stable")
    outcomes, blocks = {"labels": labels}, {}
    for protocol in ("standard", "paper"):
        ranked = order
        if protocol == "paper":  # other prompts: a few answers change
            ranked = order.copy()
            ranked[::9, :2] = ranked[::9, 1::-1]
        outcomes[f"{protocol}.predicted"] = np.ascontiguousarray(ranked[:, :5]).astype(np.int32)
        hits = ranked[:, :5] == labels[:, None]
        outcomes[f"{protocol}.acc1"] = hits[:, 0].astype(np.float32)
        outcomes[f"{protocol}.acc5"] = hits.any(axis=1).astype(np.float32)
        chosen = np.linspace(0, task.images - 1, 24).astype(int).tolist()
        entries = []
        for i in chosen:
            said = [{"label": task.classes[c], "score": 0.2, "correct": bool(c == labels[i])} for c in ranked[i, :5]]
            correct = bool(hits[i, 0])
            entries.append(
                {"image": i, "key": f"{i:05}", "label": task.classes[labels[i]], "correct": correct, "predicted": said}
            )
        blocks[protocol] = {"images": entries}
    return outcomes, blocks, set(chosen)


def _retrieve(task, images, texts, labels):
    similarity = texts @ images.T
    outcomes = {"caption_image": labels}
    chosen = np.linspace(0, task.images - 1, 24).astype(int).tolist()
    if 3 not in chosen:
        chosen[1] = 3
    first = np.unique(labels, return_index=True)[1]
    blocks, needed = {}, set()
    for protocol, rows in (("standard", np.arange(len(labels))), ("paper", first)):
        order = np.argsort(-similarity[rows], axis=1, kind="stable")
        ranks = np.argmax(order == labels[rows][:, None], axis=1)
        back = np.argsort(-similarity[rows].T, axis=1, kind="stable")
        own = labels[rows][back] == np.arange(task.images)[:, None]
        image_ranks = np.argmax(own, axis=1)
        outcomes[f"{protocol}.text_to_image_rank"] = ranks.astype(np.int32)
        outcomes[f"{protocol}.image_to_text_rank"] = image_ranks.astype(np.int32)
        for k in (1, 5, 10):
            captions = np.bincount(labels[rows], minlength=task.images)
            found = np.bincount(labels[rows], weights=ranks < k, minlength=task.images)
            outcomes[f"{protocol}.text_to_image_r{k}"] = (found / captions).astype(np.float32)
            outcomes[f"{protocol}.image_to_text_r{k}"] = (image_ranks < k).astype(np.float32)
            if (captions != 1).any():
                outcomes[f"weights.{protocol}.text_to_image_r{k}"] = captions.astype(np.float64)
        asked = []
        for image in chosen:
            row = int(np.flatnonzero(labels[rows] == image)[0])
            top = [int(j) for j in order[row, :5]]
            needed |= {image, *top}
            found = [{"image": j, "score": float(similarity[rows[row], j]), "correct": j == image} for j in top]
            caption = task.captions[rows[row]][0]
            asked.append({"caption": caption, "image": image, "rank": int(ranks[row]), "retrieved": found})
        shown = [
            {"image": i, "rank": 0, "captions": [c for c, j in task.captions if j == i], "retrieved": []}
            for i in chosen
        ]
        blocks[protocol] = {"text_to_image": asked, "image_to_text": shown}
    return outcomes, blocks, needed


def _ranks(values):
    return np.argsort(np.argsort(values)).astype(float)


def _fidelity(mine, teachers):
    def rank(a, b):
        return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])

    (images, texts), (t_images, t_texts) = mine, teachers
    upper_i, upper_t = np.triu_indices(len(images), 1), np.triu_indices(len(texts), 1)
    values = {
        "image_rank": rank((images @ images.T)[upper_i], (t_images @ t_images.T)[upper_i]),
        "text_rank": rank((texts @ texts.T)[upper_t], (t_texts @ t_texts.T)[upper_t]),
        "cross_rank": rank((images @ texts.T).ravel(), (t_images @ t_texts.T).ravel()),
        "image_cka_debiased": 0.9 - 0.2 * abs(1 - rank((images @ images.T)[upper_i], (t_images @ t_images.T)[upper_i])),
        "text_cka_debiased": 0.87,
    }
    n = len(images)
    scores = {k: {"value": v, "low": v - 0.02, "high": v + 0.02, "n": n, "confidence": 0.95} for k, v in values.items()}
    return {"samples": n, "texts": len(texts), "scores": scores, "undefined": {"image_cosine": "the widths differ"}}


def write_benchmark(
    folder: Path, model: str, seed: int, student: manifest.Manifest | None, *, only: list[Task] | None = None
) -> None:
    """A folder of stage `benchmark` for `teacher` or a method."""
    teacher = model == "teacher"
    results = {
        "schema": 1,
        "model": {"id": model, "stage": "teacher" if teacher else "distill", "dim": DIM},
        "precision": "fp32",
        "bootstrap": {"resamples": 500, "confidence": 0.95, "seed": 0},
        "cost": TEACHER_COST if teacher else STUDENT_COST,
        "tasks": {},
    }
    (folder / "outcomes").mkdir(parents=True)
    (folder / "embeddings").mkdir()
    for task in only or tasks():
        images, texts, labels = embeddings(task, model, seed)
        maker = _classify if task.kind == "classification" else _retrieve
        outcomes, blocks, needed = maker(task, images, texts, labels)
        t_images, t_texts, _ = embeddings(task, "teacher", 0)
        fidelity = None if teacher else _fidelity((images, texts), (t_images, t_texts))
        if fidelity:
            spread = np.random.default_rng(zlib.crc32(task.name.encode())).normal(size=task.images)
            value = fidelity["scores"]["cross_rank"]["value"]
            outcomes["fidelity.cross_rank"] = (value + 0.1 * (spread - spread.mean())).astype(np.float32)
        save_file(outcomes, folder / "outcomes" / f"{task.name}.safetensors")
        names = {"class.standard": texts, "class.paper": texts} if task.kind == "classification" else {"text": texts}
        save_file(
            {"image": images, **{k: v.copy() for k, v in names.items()}},
            folder / "embeddings" / f"{task.name}.safetensors",
        )
        pictures = {}
        for index in sorted(needed):
            buffer = io.BytesIO()
            picture(task, index).save(buffer, "WEBP", lossless=True)
            pictures[str(index)] = base64.b64encode(buffer.getvalue()).decode()
        files.write_json(
            folder / "examples" / f"{task.name}.json", {"kind": task.kind, "pictures": pictures, "protocols": blocks}
        )
        protocols = {}
        for protocol in ("standard", "paper"):
            values = {
                key.removeprefix(f"{protocol}."): value
                for key, value in outcomes.items()
                if key.startswith(f"{protocol}.") and value.dtype == np.float32
            }
            weights = {m: w for m in values if (w := outcomes.get(f"weights.{protocol}.{m}")) is not None}
            scores = Outcomes(values, weights).scores(task.name, Settings(resamples=500))
            protocols[protocol] = {
                "scores": {m: {**s, "n": task.images, "confidence": 0.95} for m, s in scores.items()}
            }
        results["tasks"][task.name] = {
            "kind": task.kind,
            "fingerprint": files.digest(task.name),
            "images": task.images,
            "classnames": task.classes,
            "captions": len(task.captions) or None,
            "protocols": protocols,
            "fidelity": fidelity,
        }
    files.write_json(folder / "results.json", results)
    speed = 31.0 if teacher else 505.0 + 7 * (zlib.crc32(model.encode()) % 9)
    files.write_json(
        folder / "volatile" / "speed.json",
        {
            "device": "Example CPU @ 2.10GHz",
            "threads": 2,
            "precision": "fp32",
            "image": {
                "latency_ms": {"median": 1000 / speed, "p95": 1300 / speed, "runs": 30},
                "per_second": speed,
                "rounds": {"per_second": [0.9 * speed, speed, 1.1 * speed], "latency_ms": [1000 / speed]},
            },
            "text": {"latency_ms": {"median": 2.1, "p95": 3.0, "runs": 30}, "per_second": 40 * speed},
        },
    )
    inputs = {"model": student.fingerprint if student else "0" * 64}
    manifest.write(folder, stage="benchmark", params={"bootstrap": 500}, inputs=inputs)


def write_student(folder: Path, method: str, seed: int, *, steps: int = 420) -> manifest.Manifest:
    """A folder of stage `distill`, as far as `compare` reads it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng((zlib.crc32(method.encode()), seed))
    terms = TERMS[method.partition("-")[0]]
    scales = [
        "student_scale",
        *(["cross_scale"] if len(terms) > 1 else []),
        *(["image_scale", "text_scale"] if "vrd" in terms else []),
    ]
    start = {
        "task": 5.4,
        "hrd": 3.0,
        "icl": 5.2,
        "fd": 15.0,
        "vrd": 0.08,
        "vrd_ce_image": 5.3,
        "vrd_ce_text": 5.3,
        "xrd": 0.05,
    }
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "lr", "loss", *terms, *scales, "grad_norm"])
        for step in range(1, steps + 1, 2):
            done = step / steps
            fall = 0.35 + 0.65 * math.exp(-4 * done)
            values = [start[t] * fall * (1 + 0.03 * rng.normal()) for t in terms]
            rate = 1e-3 * min(1, step / 40) * 0.5 * (1 + math.cos(math.pi * done))
            sizes = [2.659 + (11 if s == "student_scale" else 2) * done + 0.02 * rng.normal() for s in scales]
            writer.writerow([step, int(done * 6), rate, sum(values), *values, *sizes, abs(2 + rng.normal())])
    with atomic_write(folder / "volatile" / "throughput.csv", "w") as file:
        file.write("step,images_per_second,data_wait\n10,180.0,0.5\n20,490.5,0.02\n30,495.1,0.01\n")
    for name, length in (("open_clip_model.safetensors", 29_950), ("image.onnx", 3_500), ("text.onnx", 26_500)):
        (folder / name).write_bytes(b"0" * length)
    facts = {"run": f"{method}-{seed}", "method": method, "seed": seed}
    params = {"distill": {"method": method, "seed": seed, "epochs": 6, "lr": 0.001, "batch_size": 100}}
    return manifest.write(
        folder, stage="distill", params=params, inputs={"shards": "1" * 64, "cache": "2" * 64}, facts=facts
    )


def write_grid(root: Path, methods: list[str], seeds: list[int], *, only: list[Task] | None = None) -> dict[str, Path]:
    """The inputs of `compare`."""
    inputs = {"benchmarks": root / "benchmark", "students": root / "students"}
    write_benchmark(inputs["benchmarks"] / "teacher", "teacher", 0, None, only=only)
    for method in methods:
        for seed in seeds:
            student = write_student(inputs["students"] / f"{method}-{seed}", method, seed)
            write_benchmark(inputs["benchmarks"] / f"{method}-{seed}", method, seed, student, only=only)
    return inputs


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def leave_out(benchmarks: Path, reasons: dict[str, str]) -> None:
    """Give all benchmark folders tasks that were not scored."""
    for folder in benchmarks.iterdir():
        before = manifest.read(folder)
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        files.write_json(folder / "results.json", {**results, "left_out": reasons})
        manifest.write(folder, stage=before.stage, params=before.params, inputs=before.inputs, facts=before.facts)
