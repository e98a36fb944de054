"""How fast a model answers on this machine. Timings differ from run to run, so they live outside the manifest."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cliprd.models.encoder import Encoder

TEXT = "a photo of a small red bird on a branch"
WARM_UP = 2
LATENCY_RUNS, THROUGHPUT_RUNS = 50, 5  # at most; slow models stop at the limits, in seconds
LATENCY_LIMIT, THROUGHPUT_LIMIT = 1.0, 1.5


def measure(encoder: Encoder, *, batch_size: int) -> dict[str, Any]:
    """Latency at batch 1 and embeddings per second at `batch_size`, for both towers, in float32.

    Inputs are ready in memory, texts are strings (tokenizing is part of the tower). Returns the content of
    `volatile/speed.json`, see `stages.benchmark`.
    """
    size, device = encoder.image.size, encoder.device
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 3, size, size, generator=generator).to(device)
    many = torch.randn(batch_size, 3, size, size, generator=generator).to(device)
    texts = [f"{TEXT} {number}" for number in range(batch_size)]  # distinct: an encoder may embed a repeated text once
    towers: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "image": (lambda: encoder.encode_images(one), lambda: encoder.encode_images(many)),
        "text": (lambda: encoder.encode_texts([TEXT]), lambda: encoder.encode_texts(texts)),
    }
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "precision": "fp32",
    }
    for tower, (single, batch) in towers.items():
        latencies = _times(single, device, LATENCY_RUNS, LATENCY_LIMIT)
        batches = _times(batch, device, THROUGHPUT_RUNS, THROUGHPUT_LIMIT)
        report[tower] = {
            "latency_ms": {
                "median": round(1e3 * float(np.median(latencies)), 3),
                "p95": round(1e3 * float(np.quantile(latencies, 0.95)), 3),
                "runs": len(latencies),
            },
            "per_second": round(batch_size / float(np.median(batches)), 1),
            "batch_size": batch_size,
        }
    return report


def _times(call: Callable[[], Any], device: torch.device, runs: int, limit: float) -> list[float]:
    """Seconds of each call after a warm-up; stops at `runs` calls, or after `limit` seconds with one call at least."""
    begun = time.perf_counter()
    for _ in range(WARM_UP):
        call()
        if time.perf_counter() - begun > limit:  # a slow model is warm after one call
            break
    _wait(device)
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < runs and (not times or time.perf_counter() - begun < limit):
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
