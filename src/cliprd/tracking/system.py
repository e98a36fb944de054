"""The machine while it trains: MLflow's own monitors of processor, memory, disk, network and GPU.

MLflow's SystemMetricsMonitor sends by itself and ends at the first outage. Its monitors are read here instead.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

INTERVAL = 10.0  # seconds between two samples, MLflow's default


class Sampler:
    """Used by one thread."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

        self.interval = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or INTERVAL)
        self._due = 0.0
        self._monitors: list[Any] = []
        for kind in (
            cpu_monitor.CPUMonitor, disk_monitor.DiskMonitor, network_monitor.NetworkMonitor, gpu_monitor.GPUMonitor,
        ):  # fmt: skip
            with contextlib.suppress(Exception):  # no such device, or nothing to ask it by
                self._monitors.append(kind())

    def sample(self) -> None:
        """Take a sample where one is due; a monitor that fails is left out from then on."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self.interval
            for monitor in list(self._monitors):
                try:
                    monitor.collect_metrics()
                except Exception:
                    self._monitors.remove(monitor)

    def take(self) -> dict[str, float]:
        """Means of the samples since the last call, under `system/`; empty where there is none."""
        means: dict[str, float] = {}
        for monitor in self._monitors:
            if monitor.metrics:
                means |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
        return means
