"""From a spool to MLflow's server: in order, and each record once.

What the server took although its answer was lost, or what it has from before a resume, is found by asking it: a
record's metrics come in one request, which is taken as a whole, so the steps of one of them tell which records are
there. Records keep the time at which they were made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cliprd.tracking import server
from cliprd.tracking.spool import Entry, Spool

WITNESS = "loss/total"  # in every record
MOST = 1000  # metrics in one request: MLflow's limit
LINGER = 5.0  # seconds in which records gather, so that a fast training sends few requests
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


def known_steps(client: Any, run_id: str) -> set[int]:
    """Steps of which the server has the record."""
    return {metric.step for metric in client.get_metric_history(run_id, WITNESS)}


def send(client: Any, run_id: str, entries: Sequence[Entry], known: set[int]) -> None:
    """Send entries in order; those of `known` steps are left out. All of them have arrived when it returns."""
    from mlflow.entities import Metric

    waiting: list[Metric] = []

    def flush() -> None:
        if waiting:
            client.log_batch(run_id, metrics=list(waiting))
            waiting.clear()

    for entry in entries:
        if "status" in entry:
            flush()
            if entry["status"] == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            else:
                client.set_terminated(run_id, entry["status"], end_time=entry["time"])
        elif entry["step"] not in known:
            metrics = [Metric(key, value, entry["time"], entry["step"]) for key, value in entry["metrics"].items()]
            if len(waiting) + len(metrics) > MOST:
                flush()  # a record is never split
            waiting += metrics
    flush()


class Sender:
    """The thread that empties a spool.

    Args:
        spool: its writer calls `wake` after appending.
        open_run: connects; returns client and run id. Called again after each failure.
        what: the training, for the one line that an outage is worth.
    """

    def __init__(self, spool: Spool, open_run: Callable[[], tuple[Any, str]], what: str) -> None:
        self._spool, self._open_run, self._what = spool, open_run, what
        self._run: tuple[Any, str] | None = None
        self._known: set[int] = set()
        self._awake, self._ending, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._awake.set()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="cliprd-tracking", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        self._awake.set()

    def finish(self, seconds: float) -> bool:
        """Wait until all is sent, no longer than that; whether it is."""
        self._ending.set()
        self._awake.set()
        self._thread.join(seconds)
        self._given_up.set()
        return not self._thread.is_alive()

    @property
    def given_up(self) -> bool:
        """Nobody waits any more: the files are others' now."""
        return self._given_up.is_set()

    def _follow(self) -> None:
        pause = 0.0
        while True:
            if pause:
                self._ending.wait(pause) if not self._ending.is_set() else time.sleep(FIRST_PAUSE)
            else:
                self._awake.wait()
                self._ending.wait(LINGER)
            self._awake.clear()
            ending = self._ending.is_set()
            try:
                self._drain()
            except Exception as error:  # whatever a server or network can raise: it may heal
                if self.given_up:
                    return
                self._run = None
                if self.error is None:
                    server.warn(f"{self._what} is not tracked for now", error, "It is kept, and sent later.")
                self.error, pause = error, min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            else:
                self.error, pause = None, 0.0
                if ending:
                    return

    def _drain(self) -> None:
        if self._run is None:
            client, run_id = self._open_run()
            self._known = known_steps(client, run_id)
            self._run = client, run_id
        while True:
            entries, end = self._spool.read(200)
            if not entries:
                return
            send(*self._run, entries, self._known)
            if self.given_up:
                return
            self._spool.acknowledge(end)
