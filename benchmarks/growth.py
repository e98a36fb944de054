"""Whether cost grows in a straight line: prepare, cache and load of ever more samples, each in a process of its own.

    python benchmarks/growth.py [--sizes 1000 10000 100000] [--rounds N] [--plot FILE]

img2dataset's shards of tiny pictures with a caption each, all captions different: what is left beside decoding is
what cliprd adds itself. The teacher is a real open_clip model, as small as one can be. Time is that of the stage,
imports and a first small run apart; a busy machine moves the wall's clock, so the processor's own seconds stand beside
it. Memory is the highest resident set of the process, interpreter and libraries included; `start_mib` is what it was
before the stage. The load is one epoch whose set does not stay in memory, with Python's collector spared as in a
training. Ratios are to the row of 10,000 samples of the same stage, or to the smallest size.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _record import save

STAGES = ("prepare", "cache", "load")
MAKES = {"prepare": "shards", "cache": "cache"}  # folders
RAW_SHARD = 10_000  # samples of a raw tar, as img2dataset makes them
WARM = 500  # samples of the small run before the clock starts
QUIET = {  # what would blur the lines, and is no matter of the number of samples
    **os.environ,
    "OMP_NUM_THREADS": "1",  # so small a teacher gains nothing by more
    "MALLOC_MMAP_THRESHOLD_": str(2**18),  # else glibc keeps 0 to 150 MiB of fragments, as the threads happen to run
}
PICTURES = 256  # different ones
PIXELS = 16
TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": PIXELS, "patch_size": PIXELS, "layers": 1, "width": 64, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 1, "width": 64, "heads": 1},
}
PLOT = Path(__file__).parents[1] / "docs" / "growth.svg"


def main() -> None:
    """Every size and stage in a child process, and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    arguments.add_argument("--rounds", type=int, default=3, help="of sizes up to 10,000; larger ones run once")
    arguments.add_argument("--name", default="growth", help="of the result file")
    arguments.add_argument("--plot", type=Path, default=PLOT, metavar="FILE")
    arguments.add_argument("--room", type=Path, help="where the samples lie meanwhile; 6 kB a sample")
    arguments.add_argument("--one", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=options.room) as room:
        make_teacher(Path(room))
        write_raw(Path(room) / "warm" / "raw", WARM)
        for size in options.sizes:
            rows += rows_of(Path(room), size, options.rounds if size <= 10_000 else 1)
            print(json.dumps(rows[-len(STAGES) :]), file=sys.stderr, flush=True)
    for row in rows:
        same = [other for other in rows if other["stage"] == row["stage"]]
        base = next((other for other in same if other["samples"] == 10_000), same[0])
        for field, name in (("us_a_sample", "time"), ("cpu_us_a_sample", "cpu_time"), ("peak_mib", "memory")):
            row[f"{name}_ratio"] = row[field] / base[field]
    rows.sort(key=lambda row: STAGES.index(row["stage"]))
    save(options.name, rows, pixels=PIXELS, samples_per_shard=1000, captions="one a sample, all different")
    plot(rows, options.plot)


def rows_of(room: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    """The table's lines of one size; what is made is removed again."""
    found: dict[str, list[dict[str, float]]] = {stage: [] for stage in STAGES}
    folder = room / str(size)
    write_raw(folder / "raw", size)
    for _ in range(rounds):
        for stage in STAGES:
            command = [sys.executable, __file__, "--one", stage, str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=QUIET)
            found[stage].append(json.loads(done.stdout.splitlines()[-1]))
        for made in MAKES.values():
            shutil.rmtree(folder / made)
    shutil.rmtree(folder)
    return [
        {
            "stage": stage,
            "samples": size,
            "rounds": rounds,
            "us_a_sample": 1e6 * statistics.median(one["seconds"] for one in runs) / size,
            "cpu_us_a_sample": 1e6 * statistics.median(one["cpu_seconds"] for one in runs) / size,
            "start_mib": statistics.median(one["start_mib"] for one in runs),
            "peak_mib": statistics.median(one["peak_mib"] for one in runs),
        }
        for stage, runs in found.items()
    ]


def measure(stage: str, folder: Path) -> dict[str, float]:
    """One stage in this process: a small run first, then the measured one."""
    run = stage_of(stage, folder.parent)
    warm = folder.parent / "warm"
    if stage in MAKES:
        shutil.rmtree(warm / MAKES[stage], ignore_errors=True)
    run(warm)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    run(folder)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "start_mib": start / 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def stage_of(stage: str, room: Path) -> Callable[[Path], None]:
    """What runs a stage in a folder."""
    from cliprd.params import Params

    params = Params.model_validate(
        {
            "data": {"path": "{}", "samples_per_shard": 1000},
            "teacher": {"name": f"open_clip:tiny:{room / 'tiny.safetensors'}"},
            "cache": {"batch_size": 256},
            "student": {"config": TINY},
            "distill": {"epochs": 1, "batch_size": 250, "device": "cpu"},
        }
    )

    def prepare(folder: Path) -> None:
        from cliprd.stages import prepare

        data = params.data.model_copy(update={"path": str(folder / "raw")})
        prepare.run(params.model_copy(update={"data": data}), {}, folder / "shards")

    def cache(folder: Path) -> None:
        import open_clip

        from cliprd.stages import cache, teacher

        open_clip.add_model_config(room / "models")
        teacher.run(params, {}, room / "teacher")
        cache.run(params, {"shards": folder / "shards", "teacher": room / "teacher"}, folder / "cache")

    def load(folder: Path) -> None:
        from cliprd import machine
        from cliprd.data.shards import ShardSet
        from cliprd.distill.loader import Loader
        from cliprd.distill.order import Position
        from cliprd.models.image_spec import ImageSpec
        from cliprd.teacher_cache import TeacherCache

        shards = ShardSet.open(folder / "shards")
        cached = TeacherCache.open(folder / "cache", shards, params.augmentation)
        spec = ImageSpec(size=PIXELS, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        loader = Loader(params, shards, cached, spec, TINY, memory_budget=0)
        with machine.gc_frozen():
            seen = sum(len(batch.images) for batch in loader.batches(Position(0, 0)))
        if seen != shards.samples:
            raise SystemExit(f"{seen} samples came of {shards.samples}")

    return {"prepare": prepare, "cache": cache, "load": load}[stage]


def make_teacher(room: Path) -> None:
    """Config and random weights; in a process of its own, so that this one stays small: children begin as its copy."""
    (room / "models").mkdir()
    (room / "models" / "tiny.json").write_text(json.dumps(TINY))
    code = (
        "import sys, torch, open_clip; from safetensors.torch import save_file; torch.manual_seed(0);"
        "open_clip.add_model_config(sys.argv[1]); state = open_clip.create_model('tiny').state_dict();"
        "save_file({k: v.contiguous() for k, v in state.items()}, sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(room / "models"), str(room / "tiny.safetensors")]
    subprocess.run(command, check=True)


def write_raw(folder: Path, samples: int) -> None:
    """img2dataset's tars: `.jpg`, `.txt`, keys of nine digits."""
    from PIL import Image

    chance = random.Random(0)
    pictures = []
    for _ in range(PICTURES):
        buffer = io.BytesIO()
        pixels = chance.randbytes(3 * 4 * 4)
        Image.frombytes("RGB", (4, 4), pixels).resize((PIXELS, PIXELS)).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 8))) for _ in range(1000)]
    folder.mkdir(parents=True)
    for first in range(0, samples, RAW_SHARD):
        with tarfile.open(folder / f"{first // RAW_SHARD:05d}.tar", "w") as tar:
            for number in range(first, min(first + RAW_SHARD, samples)):
                caption = " ".join([*chance.choices(words, k=9), str(number)]).encode()
                for extension, data in (("jpg", pictures[number % PICTURES]), ("txt", caption)):
                    entry = tarfile.TarInfo(f"{number:09d}.{extension}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                tar.members = []


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time and memory over the number of samples."""
    from _plot import lines

    def series(field: str) -> dict[str, list[tuple[float, float]]]:
        return {s: [(row["samples"], row[field]) for row in rows if row["stage"] == s] for s in STAGES}

    panels = {"processor time, µs a sample": series("cpu_us_a_sample"), "peak memory, MiB": series("peak_mib")}
    lines(path, "time and memory of prepare, cache and load over the number of samples", panels, x_label="samples")


if __name__ == "__main__":
    main()
