"""What caching costs beside the teacher: images on disk to embeddings on disk, against the bare forward pass.

    python benchmarks/cache.py [--teacher aligned|open_clip:ARCH:WEIGHTS|ViT-B-32 …] [--images N] [--rounds N]
                               [--clip-retrieval PATH --peer-python PATH [--peer-workers N …]]

Both do the same forward passes over the same crops and captions, alternating in one run, so that other load on the
machine meets both. The bare one has its normalised float batches and its captions in memory and drops the results; the
other reads shards, decodes, crops, embeds, rounds to float16, writes and hashes files. A name of an open_clip
architecture alone takes random weights, which run as fast as trained ones.

With `--clip-retrieval`, a checkout of rom1504/clip-retrieval, its inference runs by turns with them: over the same
shards, with the same weights and batch, in float32, in a process of its own that stays (so neither side's time holds
the loading of the model) under the interpreter `--peer-python`, which has its dependencies; once for each number of
its preprocessing workers, of which the best counts. Each image has one caption then, as it embeds one text an image.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _record import save

from cliprd.data.augment import crop_box, to_tensor, train_view
from cliprd.data.images import decode
from cliprd.data.shards import Sample, ShardSet, write_shard
from cliprd.models.encoder import Encoder, resolve_device
from cliprd.params import Params
from cliprd.stages import prepare
from cliprd.teacher_cache import build

REPOSITORY = Path(__file__).parents[1]
WEIGHTS = "random.safetensors"


# What runs in the peer's process: a line of arguments in, the seconds of one inference out.
PEER = """
import contextlib, json, sys, time
sys.path.insert(0, sys.argv[1])
from clip_retrieval.clip_inference.worker import worker
for line in sys.stdin:
    with contextlib.redirect_stdout(sys.stderr):
        begun = time.perf_counter()
        worker(tasks=[0], output_partition_count=1, **json.loads(line))
        taken = time.perf_counter() - begun
    print(taken, flush=True)
"""


def main() -> None:
    """Measure and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--teacher", default="aligned")
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch-size", type=int, default=64)
    arguments.add_argument("--name", default="cache", help="of the result file")
    arguments.add_argument("--clip-retrieval", type=Path, help="its checkout; with an architecture as --teacher")
    arguments.add_argument("--peer-python", type=Path, help="an interpreter that has its dependencies")
    arguments.add_argument("--peer-workers", type=int, nargs="+", default=[0, 2])
    options = arguments.parse_args()
    if options.clip_retrieval and (options.teacher == "aligned" or ":" in options.teacher):
        arguments.error("--clip-retrieval needs an open_clip architecture as --teacher, such as ViT-B-32")
    device = resolve_device("auto")
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        teacher = make_teacher(options.teacher, device, folder)
        params = Params.model_validate({"cache": {"batch_size": options.batch_size}})
        beside = (1, max(options.peer_workers)) if options.clip_retrieval else ()  # its workers take a shard each
        shards = make_shards(folder, options.images, *beside)
        batches, texts = in_memory(shards, teacher, params, device)
        output = folder / "cache"
        sides: dict[str, Callable[[], float]] = {
            "bare forward pass": lambda: timed(lambda: forward(teacher, batches, texts), device),
            "disk to disk": lambda: timed(lambda: build(shards, teacher, params, output), device),
        }
        if options.clip_retrieval:
            peer = stack.enter_context(clip_retrieval(options, shards, folder))
            for workers in options.peer_workers:
                sides[f"clip-retrieval, {workers} workers"] = lambda workers=workers: peer(workers)  # type: ignore[misc]
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(options.rounds + 1):
            for name in sorted(sides, reverse=bool(number % 2)):  # none is always the first
                shutil.rmtree(output, ignore_errors=True)
                taken = sides[name]()
                if number:  # the first round warms up
                    seconds[name].append(taken)
    base = statistics.median(seconds["bare forward pass"])
    ours = statistics.median(seconds["disk to disk"])
    save(
        options.name,
        [
            {
                "path": name,
                "images_per_second": shards.samples / statistics.median(taken),
                "median_s": statistics.median(taken),
                "fastest_s": min(taken),
                "throughput_ratio": base / statistics.median(taken),
                "disk_to_disk_against_it": statistics.median(taken) / ours,
            }
            for name, taken in seconds.items()
        ],
        teacher=teacher.id.replace(scratch, "PATH"),
        image_size=teacher.image.size,
        images=shards.samples,
        captions=sum(map(len, texts)),
        batch_size=options.batch_size,
        rounds=options.rounds,
        seconds=seconds,
        torch_threads=torch.get_num_threads(),
    )


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds, with what a GPU was given to do."""
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


@contextlib.contextmanager
def clip_retrieval(options: argparse.Namespace, shards: ShardSet, folder: Path) -> Iterator[Callable[[int], float]]:
    """A function that runs its inference with a number of workers and returns the seconds."""
    asked = {
        "input_dataset": [str(shards.folder / shard.name) for shard in shards.shards],  # type: ignore[operator]
        "input_format": "webdataset",
        "output_folder": str(folder / "peer"),
        "batch_size": options.batch_size,
        "wds_image_key": "webp",
        "clip_model": f"open_clip:{options.teacher}/{folder / WEIGHTS}",
        "use_jit": False,
    }
    with (folder / "peer.log").open("w") as log:
        process = subprocess.Popen(
            [options.peer_python, "-c", PEER, options.clip_retrieval],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    send, receive = process.stdin, process.stdout

    def run(workers: int) -> float:
        shutil.rmtree(folder / "peer", ignore_errors=True)
        send.write(json.dumps({**asked, "num_prepro_workers": workers}) + "\n")
        send.flush()
        if not (answer := receive.readline()):
            raise SystemExit(f"clip-retrieval failed:\n{(folder / 'peer.log').read_text()[-2000:]}")
        return float(answer)

    try:
        yield run
    finally:
        send.close()
        process.wait()


def make_teacher(name: str, device: torch.device, folder: Path) -> Encoder:
    """The demo teacher with untrained heads, an open_clip teacher, or an architecture with random weights."""
    if name == "aligned":
        from cliprd.demo_teacher.aligned import AlignedTeacher, Backbones, image_spec
        from cliprd.demo_teacher.heads import AlignedHeads

        backbones = Backbones(device)
        section = Params().teacher.aligned
        heads = AlignedHeads(dim=section.dim, hidden=section.hidden, dropout=section.dropout).to(device)
        return AlignedTeacher(backbones, heads, image_spec(section.image_size))
    from cliprd.models.teacher import build_teacher

    if name.startswith("open_clip:"):
        return build_teacher(name, device=device)
    import open_clip
    from safetensors.torch import save_file

    path = folder / WEIGHTS
    save_file({k: v.contiguous() for k, v in open_clip.create_model(name).state_dict().items()}, path)
    return build_teacher(f"open_clip:{name}:{path}", device=device)


def make_shards(folder: Path, images: int, most_captions: int | None = None, fewest: int = 1) -> ShardSet:
    """The first `images` demo pairs with their first captions, in `fewest` shards or more."""
    data = {"path": str(REPOSITORY / "data/demo/train"), "samples_per_shard": images}
    prepare.run(Params.model_validate({"data": data}), {}, folder / "all")
    whole = ShardSet.open(folder / "all")
    found = whole.read(whole.shards[0])
    write_shard(folder / "some.tar", (replace(s, captions=s.captions[:most_captions]) for s in found))
    data = {"path": str(folder / "some.tar"), "samples_per_shard": min(-(-images // max(1, fewest)), 1000)}
    prepare.run(Params.model_validate({"data": data}), {}, folder / "shards")
    return ShardSet.open(folder / "shards")


def in_memory(
    shards: ShardSet, teacher: Encoder, params: Params, device: torch.device
) -> tuple[list[torch.Tensor], list[list[str]]]:
    """What `build` will feed to the teacher: the same batches of crops, and each caption once, shard by shard."""
    size, batches, texts = params.cache.batch_size, [], []
    known: set[str] = set()
    for shard in shards.shards:
        samples = list(shards.read(shard))
        for start in range(0, len(samples), size):
            crops = [crop(sample, teacher, params) for sample in samples[start : start + size]]
            batches.append(to_tensor(torch.stack(crops), teacher.image, device))
        new = {caption for sample in samples for caption in sample.captions} - known
        ordered = sorted(new, key=lambda caption: (len(caption), caption))
        texts += [ordered[start : start + size] for start in range(0, len(ordered), size)]
        known |= new
    return batches, texts


def crop(sample: Sample, teacher: Encoder, params: Params) -> torch.Tensor:
    """The first view of a sample, uint8."""
    image = decode(sample.image)
    box = crop_box(sample.key, 0, *image.size, params.augmentation)
    return torch.from_numpy(train_view(image, box, teacher.image).copy())


def forward(teacher: Encoder, batches: list[torch.Tensor], texts: list[list[str]]) -> None:
    """Nothing but the two towers."""
    for batch in batches:
        teacher.encode_images(batch)
    for text in texts:
        teacher.encode_texts(text)


if __name__ == "__main__":
    main()
