"""Peak memory and time of a training step against its batch, at once and in micro-batches (`distill.micro_batch_size`).

    python benchmarks/gradient_cache.py [--arch small] [--batches 64 128 256 512 1024] [--micro 64] [--device cpu]

`small` is a ViT of four layers, 128 wide, on 64 pixels; any open_clip config's name goes. Each measurement is a process
of its own; its peak is its largest resident set less what it held before the first step (on a GPU: torch's largest
allocation), so AdamW's moments and the gradients are in it. Sides alternate; seconds are the processor's (on a GPU: of
the clock), as other work on the machine would be in the others. The loss is clip_rd in chunks of 64 rows: whole
matrices would grow with the square of the batch.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

SMALL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 4, "width": 128, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "layers": 2, "width": 128, "heads": 2},
}
TEACHER_DIM = 512


def resident() -> float:
    """Largest resident set of this process so far, in bytes."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def step(arch: str, batch_size: int, micro: int | None, steps: int, device: str) -> dict[str, float]:
    """Steps in this process: peak bytes, and seconds of the median step after the first."""
    import torch
    from torch.nn.functional import normalize

    from cliprd.distill.device import resolve
    from cliprd.distill.distributed import World
    from cliprd.distill.forward import Forward, at_once
    from cliprd.distill.gradient_cache import GradientCache
    from cliprd.distill.objective import build_loss
    from cliprd.distill.optimizer import build_optimizer
    from cliprd.distill.rows import Batch
    from cliprd.models.student import build_student, student_config, student_spec
    from cliprd.params import Params

    student = {"config": SMALL} if arch == "small" else {"arch": arch}
    params = Params.model_validate(
        {"student": student, "distill": {"method": "clip_rd-exp", "chunk_size": 64, "device": device}}
    )
    runtime = resolve(params.distill)
    config = student_config(params.student)
    model = build_student(params.student, seed=0).to(runtime.device)
    loss = build_loss(params.distill, int(config["embed_dim"]), TEACHER_DIM).to(runtime.device)
    spec = student_spec(model, params.student)
    forward = Forward(model, loss, spec, runtime, World(), 100.0)
    backward = GradientCache(forward, World(), micro) if micro else at_once(forward)
    optimizer = build_optimizer([p for p in forward.parameters() if p.requires_grad], params.distill)
    tokens = torch.randint(1, 40_000, (batch_size, int(config["text_cfg"].get("context_length", 77))))
    tokens[:, -1] = 49_407
    batch = Batch(
        images=torch.randint(0, 256, (batch_size, spec.size, spec.size, 3), dtype=torch.uint8),
        tokens=tokens,
        teacher_image=normalize(torch.randn(batch_size, TEACHER_DIM), dim=1).half(),
        teacher_text=normalize(torch.randn(batch_size, TEACHER_DIM), dim=1).half(),
    )
    cuda = runtime.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    before = 0.0 if cuda else resident()
    taken = []
    for _ in range(steps):
        begun = clock()
        optimizer.zero_grad(set_to_none=True)
        total = sum(value.item() for value in backward(batch, batch_size).values())  # waits for a GPU
        optimizer.step()
        taken.append(clock() - begun)
        assert total == total
    peak = float(torch.cuda.max_memory_allocated()) if cuda else resident()
    return {"peak": peak - before, "seconds": statistics.median(taken[1:] or taken)}


def main() -> None:
    """Each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="small")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--micro", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="a process; the first is not timed")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(step(**options.one)))
        return

    from _record import save

    def measured(batch_size: int, micro: int | None) -> dict[str, Any]:
        task = {"arch": options.arch, "batch_size": batch_size, "micro": micro}
        task |= {"steps": options.steps, "device": options.device}
        command = [sys.executable, __file__, "--one", json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    sides: dict[tuple[int, bool], list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for batch_size in options.batches:
            for cached in (False, True):
                found = measured(batch_size, options.micro if cached else None)
                sides.setdefault((batch_size, cached), []).append(found)
    rows = []
    for batch_size in options.batches:
        peak, seconds = (
            {c: statistics.median(one[what] for one in sides[batch_size, c]) for c in (False, True)}
            for what in ("peak", "seconds")
        )
        rows.append(
            {
                "batch": batch_size,
                "peak_mib_at_once": round(peak[False] / 2**20),
                "peak_mib_cached": round(peak[True] / 2**20),
                "peak_ratio": peak[True] / peak[False],
                "seconds_at_once": seconds[False],
                "seconds_cached": seconds[True],
                "time_ratio": seconds[True] / seconds[False],
            }
        )
    save("gradient_cache", rows, arch=options.arch, micro_batch_size=options.micro, steps=options.steps)


if __name__ == "__main__":
    main()
