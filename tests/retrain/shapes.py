"""A world small enough to learn in seconds: coloured shapes, their captions, and two tasks that ask for them.

A shard knows some of the colours, so that a second shard with the others truly helps, whatever machine trains on it.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {
    "red": (215, 30, 35), "green": (30, 150, 50), "blue": (30, 70, 205), "yellow": (240, 215, 30),
    "black": (15, 15, 15), "orange": (245, 130, 20), "purple": (130, 40, 160), "cyan": (30, 200, 215),
}  # fmt: skip
FIRST, REST = tuple(COLOURS)[:3], tuple(COLOURS)[3:]
SHAPES = ("circle", "square", "triangle", "cross")


def picture(colour: str, shape: str, dice: random.Random) -> bytes:
    """A PNG of 32 pixels: the shape somewhere on a light ground, in a shade of its colour."""
    image = Image.new("RGB", (32, 32), tuple(dice.randint(225, 255) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    shade = tuple(min(255, max(0, part + dice.randint(-15, 15))) for part in COLOURS[colour])
    size, left, top = dice.randint(14, 20), dice.randint(2, 8), dice.randint(2, 8)
    right, low = left + size, top + size
    match shape:
        case "circle":
            pen.ellipse((left, top, right, low), fill=shade)
        case "square":
            pen.rectangle((left, top, right, low), fill=shade)
        case "triangle":
            pen.polygon([(left, low), ((left + right) // 2, top), (right, low)], fill=shade)
        case "cross":
            pen.line((left, top, right, low), fill=shade, width=5)
            pen.line((left, low, right, top), fill=shade, width=5)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def shard(path: Path, colours: Sequence[str], samples: int, *, seed: int, shuffled: bool = False) -> None:
    """img2dataset's tar of pictures in these colours; `shuffled` gives each picture another one's caption."""
    dice = random.Random(seed)
    drawn = [(colours[n % len(colours)], dice.choice(SHAPES)) for n in range(samples)]
    captions = [f"a {colour} {shape}" for colour, shape in drawn]
    pictures = [picture(colour, shape, dice) for colour, shape in drawn]
    if shuffled:
        dice.shuffle(captions)
    members = []
    for n, (png, caption) in enumerate(zip(pictures, captions, strict=True)):
        key = f"{seed:03d}{n:06d}"
        members += [(f"{key}.png", png), (f"{key}.txt", caption.encode())]
    _tar(path, members)


def tasks(folder: Path, *, images: int = 160) -> None:
    """Two tasks in CLIP_benchmark's layout, of pictures that no shard holds: which colour, which shape."""
    dice = random.Random(9999)
    drawn = [(list(COLOURS)[n % len(COLOURS)], dice.choice(SHAPES)) for n in range(images)]
    pictures = [picture(colour, shape, dice) for colour, shape in drawn]
    for task, classes, pick in (("colours", list(COLOURS), 0), ("shapes", list(SHAPES), 1)):
        place = folder / task
        members = []
        for n, (what, png) in enumerate(zip(drawn, pictures, strict=True)):
            members += [(f"s{n:06d}.cls", str(classes.index(what[pick])).encode()), (f"s{n:06d}.png", png)]
        _tar(place / "test" / "0.tar", members)
        (place / "test" / "nshards.txt").write_text("1\n")
        (place / "classnames.txt").write_text("\n".join(classes) + "\n")
        (place / "zeroshot_classification_templates.txt").write_text("a {c}\n")


PARAMS = {
    "data": {"path": "data/train", "samples_per_shard": 200},
    "augmentation": {"scale": [0.8, 1.0]},
    "teacher": {"name": "aligned", "aligned": {"epochs": 4, "image_size": 32, "batch_size": 64}},
    "cache": {"views": 1, "batch_size": 64},
    "student": {
        "config": {
            "embed_dim": 256,
            "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
            "text_cfg": {"context_length": 8, "vocab_size": 49408, "layers": 1, "width": 32, "heads": 2},
        }
    },
    "distill": {"epochs": 20, "batch_size": 32, "lr": 0.002, "warmup_steps": 5, "log_every": 5, "device": "cpu"},
    "ablation": {"methods": ["baseline"], "seeds": [0]},
    "benchmark": {
        "tasks": "data/tasks",
        "bootstrap": 500,
        "protocols": ["standard"],
        "fidelity_samples": 60,
        "speed": False,
    },
    "compare": {"reference": "baseline"},
    "retrain": {"method": "baseline", "seeds": [0]},
    "tracking": {"experiment": "story"},
}
