"""The machine while it trains: MLflow's own monitors of processor, memory, disk, network and GPU.

MLflow's SystemMetricsMonitor sends by itself, and ends at the first outage. Its monitors are read here, and what they
say since the last record goes with the next one: it stands over the same steps and arrives as surely as the losses.
"""

from __future__ import annotations

import os
import threading
from typing import Any

INTERVAL = 10.0  # seconds between two samples, as MLflow has it


class Sampler:
    """Samples in a thread of its own until `stop`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._monitors: list[Any] = []
        self._sampled = False
        self._thread = threading.Thread(target=self._follow, name="cliprd-system", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        interval = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or INTERVAL)
        for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
            try:
                self._monitors.append(kind())
            except Exception:  # noqa: S112 — no such device, or nothing to ask it by
                continue
        while True:
            with self._lock:
                for monitor in list(self._monitors):
                    try:
                        monitor.collect_metrics()
                    except Exception:  # a monitor that fails is worth no training
                        self._monitors.remove(monitor)
                self._sampled = True
            if self._stop.wait(interval):
                return

    def take(self) -> dict[str, float]:
        """Means of the samples since the last call, under `system/`; empty where there is none."""
        if not self._lock.acquire(blocking=False):
            return {}  # it samples at this very moment: the next record has them
        try:
            if not self._sampled:
                return {}
            self._sampled = False
            means: dict[str, float] = {}
            for monitor in self._monitors:
                means |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            return means
        finally:
            self._lock.release()

    def stop(self) -> None:
        """No more samples; does not wait."""
        self._stop.set()
