"""What all terms of CLIP-RD cost, forward and backward: whole matrices, chunks of rows, and the official loss.

Each side is a process of its own, and all sides of a size take their turns. Peak memory is what the steps add to the
process (resident set), or to the GPU's allocator with --device cuda. The official loss (`--official`, a checkout of
Rosieyang01/CLIP-RD) is run as in its multi-GPU path, with gathering as the identity and `.cuda()` doing nothing on a
CPU: it has no other path that runs. Gradients (embeddings and all scales) are compared at equal inputs, each as the
largest difference over the largest element.

`floor` is the share of the floor in the time: the products that no implementation can do without (6 forward; backward
one for each student embedding of each matrix, 6 again), at the rate that this process reaches on one such product.
Chunks multiply the six out once more on the way back. Seconds of the processor (`cpu`) stand beside those of the clock:
on a machine that others use they tell more, best with --threads 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _record import save
from _worker import SIDE, Side, serve, without_cuda

WEIGHTS = {"hrd": 1.0, "icl": 1.0, "fd": 2000.0, "VRD": 1.0, "XRD": 1.0}  # the official names of clip_rd's
PRODUCTS = 12  # of N·N·D, that a step cannot do without
TEACHER_SCALE = 50.0


def side(name: str, options: dict[str, Any]) -> None:
    """One side of one size, in a process of its own."""
    import torch
    from torch import Tensor
    from torch.nn.functional import normalize

    o = SimpleNamespace(**options)
    if o.threads:
        torch.set_num_threads(o.threads)
    terms, scales = (official if name == "official" else cliprd)(o)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(o.n, o.dim, generator=generator).to(o.device) for _ in range(4)]
    gradients: dict[str, Tensor] = {}

    def wait() -> None:
        if o.device == "cuda":
            torch.cuda.synchronize()

    def step(rows: int) -> dict[str, float]:
        x = [t[:rows].clone().requires_grad_() for t in drawn[:2]]
        taught = [normalize(t[:rows], dim=1) for t in drawn[2:]]
        scale = torch.tensor(14.0, device=o.device, requires_grad=True)
        for learned in scales:
            learned.grad = None
        wait()
        clock, cpu = time.perf_counter(), time.process_time()
        torch.stack(terms(*x, scale, *taught)).sum().backward()
        wait()
        taken = {"wall": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        names = ("image", "text", "scale", "cross", "image_scale", "text_scale")
        gradients.update({n: t.grad for n, t in zip(names, [*x, scale, *scales], strict=True) if t.grad is not None})
        return taken

    def peak() -> float:
        if o.device == "cuda":
            return float(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0

    def write(path: str) -> None:
        torch.save({name: t.cpu() for name, t in gradients.items()}, path)

    def compare(path: str) -> float:
        theirs = torch.load(path, weights_only=True)
        assert theirs.keys() == gradients.keys()
        return max(float((gradients[n].cpu() - t).abs().max() / t.abs().max()) for n, t in theirs.items())

    def rate() -> dict[str, float]:
        """Operations a second of a product of the embeddings [1024, D]·[D, N]."""
        a, b = drawn[0][:1024], drawn[1].T
        best = {"wall": 0.0, "cpu": 0.0}
        for _ in range(5):
            wait()
            clock, cpu = time.perf_counter(), time.process_time()
            a @ b
            wait()
            for key, taken in (("wall", time.perf_counter() - clock), ("cpu", time.process_time() - cpu)):
                best[key] = max(best[key], 2 * len(a) * o.n * o.dim / max(taken, 1e-9))
        return best

    step(32)  # threads and kernels are there before memory is measured
    if o.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = float(torch.cuda.memory_allocated())
    else:
        before = peak()
    serve(
        step=lambda: step(o.n), peak=lambda: peak() - before, write=write, compare=compare, rate=rate,
        threads=torch.get_num_threads,
    )  # fmt: skip


def cliprd(o: SimpleNamespace) -> tuple[Any, list[Any]]:
    """The terms as a list, and the learned scales."""
    from cliprd.losses import DistillationLoss, method_weights

    weights = method_weights("clip_rd")
    loss = DistillationLoss(o.dim, o.dim, weights=weights, chunk_size=o.chunk or None).to(o.device)
    return (lambda *x: list(loss(*x, TEACHER_SCALE).values())), [loss.cross_scale, loss.image_scale, loss.text_scale]


def official(o: SimpleNamespace) -> tuple[Any, list[Any]]:
    """The same of the official loss."""
    sys.path.insert(0, str(Path(o.official) / "src"))
    import open_clip

    if o.device == "cpu":
        without_cuda()
    sys.modules["open_clip.loss"].gather_features = lambda image, text, *_, **__: (image, text)  # type: ignore[attr-defined]
    args = SimpleNamespace(t_embed_dim=o.dim, s_embed_dim=o.dim, **{f"alpha_{k}_loss": w for k, w in WEIGHTS.items()})
    loss = open_clip.KDClipLoss(args, cache_labels=True, rank=0, world_size=2).to(o.device)
    scales = [loss.cross_logit_scale, loss.image_logit_scale, loss.text_logit_scale]
    return (lambda *x: list(loss(*x, TEACHER_SCALE, current_step=0))), scales


def measure(n: int, o: argparse.Namespace) -> list[dict[str, Any]]:
    """All sides of one size, in turn."""
    given = {"n": n, "dim": o.dim, "device": o.device, "threads": o.threads}
    chunks = {f"chunks of {chunk}" if chunk else "whole": chunk for chunk in o.chunks}
    sides = {name: Side(__file__, name, {**given, "chunk": chunk}) for name, chunk in chunks.items()}
    if o.official:
        sides = {"official": Side(__file__, "official", {**given, "official": str(o.official.resolve())}), **sides}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(o.repeats):
        for name, s in sides.items():
            times[name].append(s.ask("step"))
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        reference, *others = sides
        sides[reference].ask("write", f"{folder}/gradients")
        for name in others:
            differences[name] = sides[name].ask("compare", f"{folder}/gradients")
    rows: list[dict[str, Any]] = []
    for name, s in sides.items():
        peak, rate = s.ask("peak"), s.ask("rate")
        median = {clock: statistics.median(t[clock] for t in times[name]) for clock in ("wall", "cpu")}
        row: dict[str, Any] = {
            "n": n,
            "side": name,
            "peak_mib": peak / 2**20,
            "median_ms": 1000 * median["wall"],
            "cpu_ms": 1000 * median["cpu"],
            "gradient_difference": differences.get(name),
            "floor": PRODUCTS * 2 * n * n * o.dim / rate["cpu" if o.threads == 1 else "wall"]
            / median["cpu" if o.threads == 1 else "wall"],
            "threads": s.ask("threads"),
        }  # fmt: skip
        if rows and o.official:
            row["memory_of_official"] = row["peak_mib"] / rows[0]["peak_mib"]
            row["time_of_official"] = row["median_ms"] / rows[0]["median_ms"]
            row["cpu_of_official"] = row["cpu_ms"] / rows[0]["cpu_ms"]
        rows.append(row)
    for s in sides.values():
        s.close()
    return rows


def main() -> None:
    """Measure every size, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="a checkout of Rosieyang01/CLIP-RD")
    parser.add_argument("--name", default="losses", help="of the result file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 64, 256], help="0: whole matrices")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of each side; 0: torch's choice")
    options = parser.parse_args()
    rows = [row for n in options.sizes for row in measure(n, options)]
    save(
        options.name,
        rows,
        dim=options.dim,
        terms="all of clip_rd, forward and backward, fp32",
        repeats=options.repeats,
        teacher_scale=TEACHER_SCALE,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [SIDE]:
        side(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
