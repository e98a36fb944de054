"""What caching costs beside the teacher: images on disk to embeddings on disk, against the bare forward pass.

    python benchmarks/cache.py [--teacher aligned|open_clip:ARCH:WEIGHTS|ViT-B-32 …] [--images N] [--rounds N]

Both do the same forward passes over the same crops and captions, alternating in one run, so that other load on the
machine meets both. The bare one has its normalised float batches and its captions in memory and drops the results; the
other reads shards, decodes, crops, embeds, rounds to float16, writes and hashes files. A name of an open_clip
architecture alone takes random weights, which run as fast as trained ones.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    """Measure and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--teacher", default="aligned")
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch-size", type=int, default=64)
    arguments.add_argument("--name", default="cache", help="of the result file")
    options = arguments.parse_args()
    device = resolve_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        teacher = make_teacher(options.teacher, device)
        params = Params.model_validate({"cache": {"batch_size": options.batch_size}})
        shards = make_shards(Path(folder), options.images)
        batches, texts = in_memory(shards, teacher, params, device)
        output = Path(folder) / "cache"
        seconds: dict[str, list[float]] = {"bare forward pass": [], "disk to disk": []}
        for number in range(options.rounds + 1):
            pair = {
                "bare forward pass": lambda: forward(teacher, batches, texts),
                "disk to disk": lambda: build(shards, teacher, params, output),
            }
            for name in sorted(pair, reverse=bool(number % 2)):  # neither is always the first
                shutil.rmtree(output, ignore_errors=True)
                begun = time.perf_counter()
                pair[name]()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - begun)
    base = statistics.median(seconds["bare forward pass"])
    save(
        options.name,
        [
            {
                "path": name,
                "images_per_second": shards.samples / statistics.median(taken),
                "median_s": statistics.median(taken),
                "fastest_s": min(taken),
                "throughput_ratio": base / statistics.median(taken),
            }
            for name, taken in seconds.items()
        ],
        teacher=teacher.id,
        image_size=teacher.image.size,
        images=shards.samples,
        captions=sum(map(len, texts)),
        batch_size=options.batch_size,
        rounds=options.rounds,
        seconds=seconds,
        torch_threads=torch.get_num_threads(),
    )


def make_teacher(name: str, device: torch.device) -> Encoder:
    """The demo teacher with untrained heads, an open_clip teacher, or an architecture with random weights."""
    if name == "aligned":
        from cliprd.models.aligned import AlignedTeacher, Backbones, image_spec
        from cliprd.models.aligned_heads import AlignedHeads

        backbones = Backbones(device)
        section = Params().teacher.aligned
        heads = AlignedHeads(dim=section.dim, hidden=section.hidden, dropout=section.dropout).to(device)
        return AlignedTeacher(backbones, heads, image_spec(section.image_size))
    from cliprd.models.teacher import build_teacher

    if name.startswith("open_clip:"):
        return build_teacher(name, device=device)
    import open_clip
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        save_file({k: v.contiguous() for k, v in open_clip.create_model(name).state_dict().items()}, path)
        return build_teacher(f"open_clip:{name}:{path}", device=device)


def make_shards(folder: Path, images: int) -> ShardSet:
    """The first `images` demo pairs, in shards of at most the demo's size."""
    data = {"path": str(REPOSITORY / "data/demo/train"), "samples_per_shard": images}
    prepare.run(Params.model_validate({"data": data}), {}, folder / "all")
    whole = ShardSet.open(folder / "all")
    write_shard(folder / "some.tar", whole.read(whole.shards[0]))
    data = {"path": str(folder / "some.tar"), "samples_per_shard": min(images, 1000)}
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
