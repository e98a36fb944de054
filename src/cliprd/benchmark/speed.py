"""Latency and throughput of a model on this machine. Timings vary between runs, so the manifest does not list them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cliprd.models.encoder import Encoder

Call = Callable[[], Any]

TEXT = "a photo of a small red bird on a branch"
WARM_UP = 2
ROUNDS = 5
LATENCY_RUNS = 10  # at most, a round; LATENCY_LIMIT ends slow models' rounds earlier
LATENCY_LIMIT = 0.2  # seconds a round


def measure(encoder: Encoder, *, batch_size: int) -> dict[str, Any]:
    """Latency at batch 1 and embeddings per second at `batch_size`, for both towers, in float32.

    Inputs are in memory; texts are strings (tokenizing is part of the tower). The four measurements alternate over
    `ROUNDS` rounds, so that a slow phase of the machine affects all of them and shows in the spread of the rounds.

    Returns:
        Content of `volatile/speed.json`; see docs/formats.md.
    """
    size, device = encoder.image.size, encoder.device
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 3, size, size, generator=generator).to(device)
    many = torch.randn(batch_size, 3, size, size, generator=generator).to(device)
    texts = [f"{TEXT} {number}" for number in range(batch_size)]  # distinct: an encoder may embed a repeated text once
    singles: dict[str, Call] = {
        "image": lambda: encoder.encode_images(one),
        "text": lambda: encoder.encode_texts([TEXT]),
    }
    batches: dict[str, Call] = {
        "image": lambda: encoder.encode_images(many),
        "text": lambda: encoder.encode_texts(texts),
    }
    for call in (*singles.values(), *batches.values()):
        _warm(call, device)
    latencies: dict[str, list[list[float]]] = {tower: [] for tower in singles}
    seconds: dict[str, list[float]] = {tower: [] for tower in batches}
    for _ in range(ROUNDS):
        for tower, call in singles.items():
            latencies[tower].append(_times(call, device, LATENCY_RUNS, LATENCY_LIMIT))
        for tower, call in batches.items():
            seconds[tower] += _times(call, device, 1, 0.0)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "precision": "fp32",
        **{tower: _tower(latencies[tower], seconds[tower], batch_size) for tower in singles},
    }


def _tower(latencies: list[list[float]], seconds: list[float], batch_size: int) -> dict[str, Any]:
    pooled = [latency for part in latencies for latency in part]
    return {
        "latency_ms": {
            "median": round(1e3 * float(np.median(pooled)), 3),
            "p95": round(1e3 * float(np.quantile(pooled, 0.95)), 3),
            "runs": len(pooled),
        },
        "per_second": round(batch_size / float(np.median(seconds)), 1),
        "rounds": {
            "latency_ms": [round(1e3 * float(np.median(part)), 3) for part in latencies],
            "per_second": [round(batch_size / one, 1) for one in seconds],
        },
        "batch_size": batch_size,
    }


def _warm(call: Call, device: torch.device) -> None:
    start = time.perf_counter()
    for _ in range(WARM_UP):
        call()
        _wait(device)
        if time.perf_counter() - start > 1.0:  # a slow model is warm after one call
            break


def _times(call: Call, device: torch.device, runs: int, limit: float) -> list[float]:
    """Seconds of each call; stops at `runs` calls, or after `limit` seconds with one call at least."""
    times: list[float] = []
    round_start = time.perf_counter()
    while len(times) < runs and (not times or time.perf_counter() - round_start < limit):
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
