"""What all terms of CLIP-RD cost, forward and backward: whole matrices against chunks of rows. One process a line.

Peak memory is what the step adds to the process (resident set), or to the GPU's allocator with --device cuda.
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

from _record import save

DIM = 256


def measure(n: int, chunk_size: int | None, device: str, repeats: int) -> dict[str, Any]:
    """One line of the table, in this process."""
    import torch
    from torch.nn.functional import normalize

    from cliprd.losses import DistillationLoss, method_weights

    def step(rows: int) -> float:
        torch.manual_seed(0)
        x = [torch.randn(rows, DIM, device=device, requires_grad=True) for _ in range(2)]
        t = [normalize(torch.randn(rows, DIM, device=device), dim=1) for _ in range(2)]
        scale = torch.tensor(14.0, device=device, requires_grad=True)
        start = time.perf_counter()
        torch.stack(list(loss(*x, scale, *t, 50.0).values())).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    loss = DistillationLoss(DIM, DIM, weights=method_weights("clip_rd"), chunk_size=chunk_size).to(device)
    step(32)  # threads and kernels are there before memory is measured
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    times = [step(n) for _ in range(repeats)]
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() - before
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "n": n,
        "chunk_size": chunk_size,
        "peak_mib": peak / 2**20,
        "median_ms": 1000 * statistics.median(times),
        "fastest_ms": 1000 * min(times),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure every line in a process of its own, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, type=int, metavar=("N", "CHUNK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        n, chunk = options.one
        print(json.dumps(measure(n, chunk or None, options.device, options.repeats)))
        return
    rows = []
    for n in options.sizes:
        for chunk in [0, *options.chunks]:
            command = [sys.executable, __file__, "--one", str(n), str(chunk)]
            command += ["--device", options.device, "--repeats", str(options.repeats)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
    save("losses", rows, dim=DIM, terms="all of clip_rd, forward and backward", repeats=options.repeats)


if __name__ == "__main__":
    main()
