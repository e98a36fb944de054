"""Rebuild data/demo byte for byte from the named packages.

    python tools/demo_data/build.py --packages FOLDER --output data/demo

Packages are fetched into FOLDER by npm and apt-get where it lacks them, checked by sha256, and unpacked there. WebP
and gzip bytes depend on the versions in BUILT_WITH (Pillow is pinned by requirements.lock): others are told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import items as source
import numpy as np
from attribution import attribution
from hashing import dhash, near_pairs, variants
from items import Item
from licences import write_licences
from packages import PACKAGES, obtain
from pictures import decode, encode, square
from PIL import Image, features
from writing import Sample, check_replaceable, move_into_place, write_sums, write_tar, write_task

BUILT_WITH = {"pillow": "13.0.0", "libwebp": "1.6.0", "zlib": "1.2.13"}
TRAIN_SIDE, STAMP_SIDE, RENDER_SIDE, CLIP_SIDE = 64, 160, 72, 64
PER_TAR = 2500
FASHION_PER_CLASS = 200
HELD_OUT_PERCENT = 22
PLAIN = ("openclipart-signs-and-symbols-flags", "openclipart-shapes", "openclipart-computer-icons")  # never held out

PHOTO = ("{c}", "a photo of a {c}", "a photo of one {c} on a white background", "a picture of a {c}")
RENDER = ("{c}", "{c} emoji", "a 3D render of a {c}", "an icon of a {c}")
FASHION = ("{c}", "a photo of a {c}", "a black and white photo of a {c}", "a product photo of a {c}")


def embed(listed: Iterable[Item], side: int) -> list[tuple[Item, bytes]]:
    """Items with their encoded squares, in order; empty and huge images are left out."""

    def one(item: Item) -> bytes | None:
        image = square(item.path, side)
        return encode(image) if image else None

    listed = list(listed)
    with ThreadPoolExecutor() as pool:
        return [(item, data) for item, data in zip(listed, pool.map(one, listed), strict=True) if data]


def first_of_each(samples: Iterable[Sample], key: Callable[[Sample], object]) -> list[Sample]:
    """Samples whose `key` none before them has."""
    seen: dict[object, Sample] = {}
    for sample in samples:
        seen.setdefault(key(sample), sample)
    return list(seen.values())


def without_variants(samples: list[Sample], training: list[bytes]) -> list[Sample]:
    """Samples that are a variant neither of a training image nor of an earlier sample."""
    images = [decode(sample.data) for sample in samples]
    dropped = {j for _, j in variants([decode(data) for data in training], images)}
    dropped |= {j for i, j in variants(images, images) if i < j}
    return [sample for number, sample in enumerate(samples) if number not in dropped]


def unique(listed: list[Item]) -> list[Item]:
    """Keys made unique by a number where two paths give the same."""
    seen: Counter[str] = Counter()
    result = []
    for item in listed:
        seen[item.key] += 1
        result.append(item if seen[item.key] == 1 else replace(item, key=f"{item.key}-{seen[item.key]}"))
    return result


def build(packages: Path, output: Path) -> dict[str, object]:
    """Fetch, clean, write; returns what was counted."""
    got = {name: obtain(package, packages) for name, package in PACKAGES.items()}

    # All that any task could test on is set aside first; training is what is neither that nor looks like it.
    stamps = embed(source.stamps(got["tuxpaint"]), STAMP_SIDE)
    renders = embed(source.fluent(got["fluent"], got["google"]), RENDER_SIDE)
    fashion = [
        Sample(key, encode(Image.fromarray(pixels), "png"), label, "png")
        for key, label, pixels in source.fashion(got["fashion"], FASHION_PER_CLASS)
    ]
    clips = list(source.openclipart(got["openclipart-png"], got["openclipart-svg"]))
    titles = Counter(item.captions[0] for item in clips)
    held = embed(
        (
            item
            for item in clips
            if titles[item.captions[0]] == 1
            and len(item.captions[0]) > 4
            and not item.key.startswith(PLAIN)
            and source.held_out(item.key, HELD_OUT_PERCENT)
        ),
        CLIP_SIDE,
    )
    aside = [data for _, data in (*stamps, *renders, *held)] + [sample.data for sample in fashion]
    kept = {item.key for item, _ in held}
    training = embed(
        unique(
            [
                *source.emoji(got["google"], "google"),
                *source.emoji(got["twitter"], "twitter"),
                *(item for item in clips if item.key not in kept),
            ]
        ),
        TRAIN_SIDE,
    )
    hashes = np.stack([dhash(decode(data)) for _, data in training])
    near = {i for i, _, _ in near_pairs(hashes, np.stack([dhash(decode(data)) for data in aside]))}
    training = [pair for number, pair in enumerate(training) if number not in near]
    training.sort(key=lambda pair: hashlib.sha256(pair[0].key.encode()).digest())  # each tar is a mixture
    for start in range(0, len(training), PER_TAR):
        files = []
        for item, data in training[start : start + PER_TAR]:
            files += [(f"{item.key}.webp", data), (f"{item.key}.txt", "\n".join(item.captions).encode())]
        write_tar(output / "train" / f"{start // PER_TAR:05d}.tar.gz", files, compress=True)

    classes = list(dict.fromkeys(source.PHOTO_CLASSES.values()))
    captions = source.clipart_captions()
    photos = [Sample(item.key, data, classes.index(item.label)) for item, data in stamps if item.label]
    named = [Sample(item.key, data, item.captions[0]) for item, data in stamps if item.captions]
    families = {source.family(item.key) for item, _ in training}
    clipart = [
        Sample(item.key, data, captions[item.key])
        for item, data in held
        if item.key in captions and source.family(item.key) not in families
    ]
    tasks = {
        "fashion_mnist": (fashion, source.FASHION_CLASSES, FASHION),
        "fluent_emoji": (
            [Sample(item.key, data, number) for number, (item, data) in enumerate(renders)],
            [item.label for item, _ in renders],
            RENDER,
        ),
        "openclipart_captions": (without_variants(clipart, [data for _, data in training]), (), ()),
        "tuxpaint_captions": (first_of_each(named, lambda sample: str(sample.target).lower()), (), ()),
        "tuxpaint_photos": (photos, classes, PHOTO),
    }
    for name, (samples, classnames, templates) in tasks.items():
        gpl = name.startswith("tuxpaint")
        write_task(output / ("gpl-2" if gpl else "benchmark") / name, samples, classnames, templates)
        if gpl:
            os.symlink(f"../gpl-2/{name}", output / "benchmark" / name)
    write_licences(output, got)

    facts: dict[str, object] = {
        "train": dict(sorted(Counter(item.key.split("-")[0] for item, _ in training).items())),
        "removed_near_benchmark": len(near),
        "benchmark": {name: len(samples) for name, (samples, _, _) in sorted(tasks.items())},
        "built_with": versions(),
    }
    (output / "counts.json").write_text(json.dumps(facts, indent=2) + "\n")
    (output / "ATTRIBUTION.md").write_text(attribution(PACKAGES, facts), encoding="utf-8")
    (output / ".gitattributes").write_text("* -text\n")  # checksums hold only where git leaves line ends alone
    write_sums(output)
    return facts


def versions() -> dict[str, str]:
    """The libraries that the bytes depend on."""
    return {
        "pillow": Image.__version__,
        "libwebp": str(features.version("webp")),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


def main() -> None:
    """Parse, build beside the output, move into place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of package archives, filled where empty")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; only one of this tool is replaced")
    options = parser.parse_args()
    output = options.output.resolve()
    check_replaceable(output)
    for library, version in versions().items():
        if version != BUILT_WITH[library]:
            print(
                f"warning: {library} is {version}, the committed files were made with {BUILT_WITH[library]}: "
                "images will be the same, bytes may not",
                file=sys.stderr,
            )
    built = output.with_name(f".{output.name}.new")
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir(parents=True)
    facts = build(options.packages.resolve(), built)
    move_into_place(built, output)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
