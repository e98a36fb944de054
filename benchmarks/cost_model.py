"""What a distillation costs: gigabytes, and GPU hours with the teacher cached and live, for sets of known sizes.

    python benchmarks/cost_model.py [--tflops 200] [--tokens 32] [--views 1 4] [--cache-images-per-s N] ...

It counts FLOPs of the architectures (as `cliprd plan` does; text at the captions' real length) and divides by the rate
that a GPU reaches. THE RATE IS AN ASSUMPTION UNTIL IT IS MEASURED: the default of 200 TFLOP/s is about a fifth of what
an H100's or H200's data sheet promises for dense bf16 (989), and no GPU of this project has been measured yet. Give
measured throughputs and they are taken instead. Hours are of one GPU, and of nothing but the GPU's work: where decoding
does not keep up they are longer.

Break-even: the cache costs `views` passes of the teacher and one of each caption once; a live teacher costs a pass of
both in every epoch. So a cache of one view has paid after the first epoch, one of V views after V image passes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from typing import Any

SETS = {  # pairs as published; of CC12M also what is left where a fifth of its links is dead
    "CC3M": 3_000_000,
    "CC12M (10.0 M left)": 10_000_000,
    "CC12M (all)": 12_400_000,
    "DataComp-1B": 1_280_000_000,
}
BACKWARD = 3  # forward and backward of a trained network cost about three forwards
FLOPS = 2  # a multiply-accumulate
GB, T = 1e9, 1e12


@dataclass(frozen=True)
class Work:
    """FLOPs of one pair: forward passes of teacher and student, of an image and of a caption."""

    teacher_image: float
    teacher_text: float
    student_image: float
    student_text: float

    @property
    def live(self) -> float:
        """Of an epoch with a live teacher."""
        return self.teacher_image + self.teacher_text + self.cached

    @property
    def cached(self) -> float:
        """Of an epoch from the cache: the student's forward and backward."""
        return BACKWARD * (self.student_image + self.student_text)

    def cache(self, views: int) -> float:
        """Of the cache, once."""
        return views * self.teacher_image + self.teacher_text


@dataclass(frozen=True)
class Rates:
    """FLOP/s, or pairs a second where they have been measured (None: not measured)."""

    flops: float
    cache_images: float | None = None
    cached_pairs: float | None = None
    live_pairs: float | None = None


@dataclass(frozen=True)
class Cost:
    """Of one set of pairs; gigabytes are 10⁹ bytes, hours are of one GPU."""

    pairs: int
    shards_gb: float
    cache_gb: float
    cache_hours: float
    cached_epoch_hours: float
    live_epoch_hours: float
    cached_hours: float
    live_hours: float
    speedup_ratio: float
    break_even_epochs: int | None


def cost(
    pairs: int, work: Work, rates: Rates, *, views: int, captions: float, dim: int, epochs: int, bytes_a_pair: float
) -> Cost:
    """The arithmetic.

    Args:
        views: of each image in the cache. captions: of each image, on average.
        dim: width of the teacher's embeddings, float16 in the cache.
        bytes_a_pair: of a shard: image, captions and tar headers.
    """
    once = pairs * views / rates.cache_images if rates.cache_images else pairs * work.cache(views) / rates.flops
    cached = pairs / rates.cached_pairs if rates.cached_pairs else pairs * work.cached / rates.flops
    live = pairs / rates.live_pairs if rates.live_pairs else pairs * work.live / rates.flops
    hour = 3600.0
    return Cost(
        pairs=pairs,
        shards_gb=pairs * bytes_a_pair / GB,
        cache_gb=pairs * (views + captions) * dim * 2 / GB,
        cache_hours=once / hour,
        cached_epoch_hours=cached / hour,
        live_epoch_hours=live / hour,
        cached_hours=(once + epochs * cached) / hour,
        live_hours=epochs * live / hour,
        speedup_ratio=epochs * live / (once + epochs * cached),
        break_even_epochs=break_even(once, cached, live),
    )


def break_even(once: float, cached: float, live: float) -> int | None:
    """The first number of whole epochs after which the cache has cost no more in all; None if it never pays.

    A millionth is forgiven: one view costs exactly what one live epoch costs the teacher, but for rounding.
    """
    saved = live - cached
    return max(1, math.ceil(once / saved * (1 - 1e-6))) if saved > 0 else None


def work_of(teacher: str, student: str, *, teacher_tokens: int, student_tokens: int) -> tuple[Work, int]:
    """Counted on the architectures with random weights; and the width of the teacher's embeddings."""
    from cliprd.benchmark.cost import cost as counted
    from cliprd.models import config
    from cliprd.models.image_spec import ImageSpec
    from cliprd.models.open_clip_encoder import OpenClipEncoder
    from cliprd.models.student import build_model

    found: list[float] = []
    dim = 0
    for arch, tokens in ((teacher, teacher_tokens), (student, student_tokens)):
        cfg = config.named(arch)
        cfg = {**cfg, "text_cfg": {**cfg["text_cfg"], "context_length": tokens}}  # what a batch is cut to
        spec = ImageSpec(size=config.image_size(cfg), mean=(0.5,) * 3, std=(0.5,) * 3)
        macs = counted(OpenClipEncoder(build_model(cfg, where=arch), cfg, spec))
        found += [FLOPS * macs["image_macs"], FLOPS * macs["text_macs"]]
        dim = dim or int(cfg["embed_dim"])
    return Work(*found), dim


def main() -> None:
    """Count, print and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--teacher", default="ViT-B-16")
    arguments.add_argument("--student", default="ViT-T-16")
    arguments.add_argument("--tokens", type=int, default=32, help="a batch is cut to its longest caption (default 32)")
    arguments.add_argument("--views", type=int, nargs="+", default=[1, 4])
    arguments.add_argument("--captions", type=float, default=1.0, help="of an image")
    arguments.add_argument("--epochs", type=int, default=32)
    arguments.add_argument("--kb-a-pair", type=float, default=25.0, help="of a shard (default 25: JPEG of 256 pixels)")
    arguments.add_argument("--pairs", type=int, nargs="*", default=[], help="further sizes")
    arguments.add_argument("--tflops", type=float, default=200.0, help="ASSUMED where nothing measured is given")
    arguments.add_argument("--cache-images-per-s", type=float, help="measured, of one GPU")
    arguments.add_argument("--cached-pairs-per-s", type=float, help="measured, training from the cache on one GPU")
    arguments.add_argument("--live-pairs-per-s", type=float, help="measured, training with a live teacher on one GPU")
    options = arguments.parse_args()
    work, dim = work_of(options.teacher, options.student, teacher_tokens=options.tokens, student_tokens=options.tokens)
    measured = (options.cache_images_per_s, options.cached_pairs_per_s, options.live_pairs_per_s)
    rates = Rates(options.tflops * T, *measured)
    assumed = f"{options.tflops:g} TFLOP/s, an assumption" if None in measured else "measured throughputs"
    rows: list[dict[str, Any]] = []
    for name, pairs in {**SETS, **{f"{n:,} pairs": n for n in options.pairs}}.items():
        for views in options.views:
            found = cost(
                pairs, work, rates, views=views, captions=options.captions, dim=dim, epochs=options.epochs,
                bytes_a_pair=1000 * options.kb_a_pair,
            )  # fmt: skip
            rows.append({"set": name, "views": views, **asdict(found)})
    print(f"{options.teacher} -> {options.student}, {options.epochs} epochs; hours of one GPU at {assumed}")
    from _record import save

    save(
        "cost_model",
        rows,
        hours_from=assumed,
        bytes_from=f"{options.kb_a_pair:g} kB a pair, an assumption",
        gflop_a_pair={name: flops / 1e9 for name, flops in asdict(work).items()},
        tokens=options.tokens,
        epochs=options.epochs,
    )


if __name__ == "__main__":
    main()
