"""Shards and cache to batches, on one core each: cliprd's loader against open_clip's own WebDataset pipeline.

    python benchmarks/loading.py [--sizes 256 512 1280] [--qualities 95 90] [--images N] [--rounds N] [--device cuda]

Both read the same shards of JPEGs made of real photos (img2dataset's sizes: the shorter side is 256 or 512; 1280 is a
photo as it comes), crop at random to 224 pixels, tokenise and give batches of 256, by turns in one process that is
bound to one core.
A second is one of processor time, which other load on the machine does not count to; the clock's rates stand beside.
open_clip's is `open_clip_train.data.get_wds_dataset` with its training transform, without worker processes (they would
only share the core, and send what they made besides); ours has one loader thread and streams (`memory_budget=0`).

Then what the short cuts of the student's crops cost: the cosine of a real encoder's features (EfficientNet-Lite0,
ImageNet weights, 1,280 wide) of quick crops to those of the plain path, over the same pictures. And how long a real
training step waits for its data, with the machine's cores as they are.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from _record import save
from open_clip_train import data as open_clip_data
from PIL import Image

from cliprd.artifact import manifest
from cliprd.data.augment import crop_box, to_tensor, train_view
from cliprd.data.images import decode
from cliprd.data.quick import quick_views
from cliprd.data.shards import Sample, ShardSet, write_shard
from cliprd.demo_teacher.efficientnet import MEAN, STD, EfficientNetLite0
from cliprd.distill.loader import Loader
from cliprd.distill.order import Position
from cliprd.distill.record import Record
from cliprd.distill.train import train
from cliprd.models.image_spec import ImageSpec
from cliprd.models.student import build_student, save_student, student_config
from cliprd.params import Params
from cliprd.stages import cache, prepare
from cliprd.teacher_cache import TeacherCache

REPOSITORY = Path(__file__).parents[1]
PHOTOS = REPOSITORY / "data/demo/gpl-2/tuxpaint_photos/test/0.tar"
BATCH, CROP, SHARDS, TILE = 256, 224, 4, 128
TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
WORDS = "young woman in a red dress walks her dog on the beach at sunset near an old wooden boat stock photo"
SMALL_TEACHER = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 1, "width": 64, "heads": 1},
}


def main() -> None:
    """Measure and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1280])
    arguments.add_argument("--qualities", type=int, nargs="+", default=[95, 90])
    arguments.add_argument("--images", type=int, default=1024)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=8, help="of the training whose waiting is measured; 0: none")
    arguments.add_argument("--device", default="auto", help="of that training")
    options = arguments.parse_args()
    rows, cosines = [], []
    waiting: dict[str, Any] | None = None
    encoder = EfficientNetLite0(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            for quality in options.qualities:
                folder = Path(scratch) / f"{size}-{quality}"
                encoded = pictures(size, quality, min(options.images, 256))
                make_inputs(folder, encoded, options.images)
                rows += compare(folder, size, quality, encoded, options.rounds)
                cosines.append(cosine(encoder, size, quality, encoded[:64]))
                shutil.rmtree(folder)
        if options.steps:
            waiting = wait_share(Path(scratch) / "training", options.steps, options.device)
    for found in (*cosines, waiting):
        print(found)
    save(
        "loading",
        rows,
        images=options.images,
        batch_size=BATCH,
        crop=CROP,
        rounds=options.rounds,
        cosine=cosines,
        waiting=waiting,
    )


def pictures(size: int, quality: int, count: int) -> list[bytes]:
    """JPEGs, 4:3 or 3:4, the shorter side `size`: mosaics of real photos in their own resolution, edge to edge."""
    with tarfile.open(PHOTOS) as tar:
        files = [member for member in tar if member.name.endswith(".webp")]
        tiles = [decode(file.read()) for member in files if (file := tar.extractfile(member))]
    rng = np.random.default_rng(size)
    found = []
    for number in range(count):
        width, height = (size * 4 // 3, size) if number % 2 else (size, size * 4 // 3)
        canvas = Image.new("RGB", (width, height))
        for x in range(0, width, TILE):
            for y in range(0, height, TILE):
                tile = tiles[rng.integers(len(tiles))]
                canvas.paste(tile.crop((16, 16, 16 + TILE, 16 + TILE)), (x, y))  # without its white rim
        buffer = io.BytesIO()
        canvas.save(buffer, "JPEG", quality=quality)
        found.append(buffer.getvalue())
    return found


def settings(folder: Path, **distill: Any) -> Params:
    """One epoch over the shards in `folder`, all samples in the shuffle buffer as in open_clip's of 5,000."""
    tree = {
        "data": {"kind": "webdataset", "path": str(folder / "raw")},
        "tracking": {"uri": ""},
        "distill": {"epochs": 1, "batch_size": BATCH, "shuffle_buffer": 5000, "workers": 1, **distill},
    }
    return Params.model_validate(tree)


def make_inputs(folder: Path, encoded: list[bytes], count: int) -> None:
    """Shards of `count` samples by stage `prepare`, and a cache of them by a teacher so small that it is soon made."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            f"{n:09d}", encoded[n % len(encoded)], "jpg", (" ".join(rng.choice(WORDS.split(), rng.integers(8, 24))),)
        )
        for n in range(count)
    ]
    (folder / "raw").mkdir(parents=True)
    for shard in range(SHARDS):
        write_shard(folder / f"raw/{shard:05d}.tar", samples[shard::SHARDS])
    prepare.run(settings(folder), {}, folder / "shards")
    student = Params.model_validate({"student": {"config": SMALL_TEACHER}}).student
    save_student(build_student(student, seed=1), student, folder / "teacher")
    manifest.write(folder / "teacher", stage="distill", params={}, inputs={})
    cache.run(settings(folder), {"shards": folder / "shards", "teacher": folder / "teacher"}, folder / "cache")


def compare(folder: Path, size: int, quality: int, encoded: list[bytes], rounds: int) -> list[dict[str, Any]]:
    """Epochs of either side by turns, in this process, bound to one core."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    sides: dict[str, Callable[[Path], Callable[[], int]]] = {"open_clip": open_clip_epoch, "cliprd": cliprd_epoch}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    walls: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for number in range(rounds + 1):
            for name in sorted(sides, reverse=bool(number % 2)):  # neither is always the first
                epoch = sides[name](folder)  # what is opened and checked once a training is no part of it
                begun, wall = time.process_time(), time.perf_counter()
                images = epoch()
                if number:  # the first round warms up
                    rates[name].append(images / (time.process_time() - begun))
                    walls[name].append(images / (time.perf_counter() - wall))
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
    base = statistics.median(rates["open_clip"])
    common = {"shorter_side": size, "quality": quality, "kilobytes": statistics.mean(map(len, encoded)) / 1000}
    return [
        {
            "loader": name,
            **common,
            "images_per_second_per_core": statistics.median(found),
            "slowest": min(found),
            "fastest": max(found),
            "ratio": statistics.median(found) / base,
            "per_second_by_the_clock": statistics.median(walls[name]),
        }
        for name, found in rates.items()
    ]


def open_clip_epoch(folder: Path) -> Callable[[], int]:
    """An epoch of open_clip's training pipeline as its `main` builds it, in this process; returns its images."""
    shards = sorted((folder / "shards").glob("*.tar"))
    count = ShardSet.open(folder / "shards").samples
    asked = argparse.Namespace(
        train_data="::".join(map(str, shards)),
        train_num_samples=count,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=BATCH,
        workers=0,
        world_size=1,
    )
    # Its own grouping of a tar's files predates webdataset 0.2.87; what it replaces stands there as a comment.
    handler = open_clip_data.log_and_continue
    open_clip_data.tarfile_to_samples_nothrow = open_clip_data.wds.tarfile_to_samples(handler=handler)
    transform = open_clip.image_transform(CROP, is_train=True)
    data = open_clip_data.get_wds_dataset(asked, transform, is_train=True, tokenizer=TOKENIZER)
    return lambda: sum(len(images) for images, _ in data.dataloader)


def cliprd_epoch(folder: Path) -> Callable[[], int]:
    """An epoch of our loader for the default student, streaming, as on a set that does not fit into memory."""
    params = settings(folder)
    shards = ShardSet.open(folder / "shards")
    found = TeacherCache.open(folder / "cache", shards, params.augmentation)
    spec = ImageSpec(size=CROP, mean=params.student.mean, std=params.student.std)
    loader = Loader(params, shards, found, spec, student_config(params.student), memory_budget=0)
    return lambda: sum(len(batch.images) for batch in loader.batches(Position(0, 0)))


def cosine(encoder: EfficientNetLite0, size: int, quality: int, encoded: list[bytes]) -> dict[str, Any]:
    """Of the features of quick crops with those of plain ones."""
    spec = ImageSpec(size=CROP, mean=MEAN, std=STD)
    augmentation = Params().augmentation
    plain, quick = [], []
    for number, data in enumerate(encoded):
        image = decode(data)
        plain.append(train_view(image, crop_box(str(number), 0, *image.size, augmentation), spec))
        quick.append(quick_views(data, str(number), [0], augmentation, spec, max_pixels=2**62)[0])
    a, b = (encoder(to_tensor(np.stack(views), spec))[0] for views in (plain, quick))
    found = torch.nn.functional.cosine_similarity(a, b)
    off = np.abs(np.stack(plain).astype(int) - np.stack(quick))
    return {
        "shorter_side": size,
        "quality": quality,
        "pictures": len(found),
        "cosine_min": found.min().item(),
        "cosine_mean": found.mean().item(),
        "pixel_difference_mean": float(off.mean()),
    }


def wait_share(folder: Path, steps: int, device: str) -> dict[str, Any]:
    """A real training of the default student, ViT-T/16, on a streamed set: its waiting for data as it records it."""
    batch = 64
    make_inputs(folder, pictures(256, 95, 256), batch * steps)
    params = settings(folder, batch_size=batch, device=device, log_every=1, shuffle_buffer=2 * batch)
    shards = ShardSet.open(folder / "shards")
    found = TeacherCache.open(folder / "cache", shards, params.augmentation)
    records: list[Record] = []
    train(params, shards, found, folder / "student", report=records.append)
    waits = [record.data_wait for record in records]
    return {
        "student": params.student.arch,
        "batch_size": batch,
        "steps": steps,
        "images_per_second": statistics.median(record.images_per_second for record in records),
        "data_wait_first_step": waits[0],
        "data_wait_median": statistics.median(waits[1:]),
        "data_wait_mean_after_first": statistics.mean(waits[1:]),
    }


if __name__ == "__main__":
    main()
