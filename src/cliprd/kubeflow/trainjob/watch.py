"""Have a cluster do a job, wait for its end, and end as it did.

A job's name says its content, so a caller that is started again finds its job: one that still runs is followed on, one
that has ended is removed and made anew (what is whole in its output, the training itself finds at once).
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from cliprd.errors import CliprdError, RetryableError
from cliprd.kubeflow.trainjob.cluster import Cluster
from cliprd.kubeflow.trainjob.spec import FINAL_CODES

POLL_SECONDS = 5.0
LOST_SECONDS = 600.0  # the API may be away for as long: an upgrade of the control plane
GONE_SECONDS = 300.0  # for pods to end
_SAID = re.compile(r"cliprd: error: (.*)")


class Cancelled(CliprdError):
    """Whoever runs the caller has ended it, and with it the job."""

    exit_code = 130


@dataclass(frozen=True)
class Ending:
    """How a pod's last try ended: its exit code, and its last words."""

    pod: str
    code: int
    words: str


def run(cluster: Cluster, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Make the objects and wait until the last of them, the job, has succeeded. A signal to end removes them.

    Raises:
        CliprdError: the job failed: of the class and with the words with which its pod did; what cannot heal ends it
            without waiting for its engine's own tries. RetryableError: the job was removed by others, its engine gave
            up, or the API was away for long. EnvironmentError_: no such engine, or no right to use it.
    """
    job = manifests[-1]
    with _ended_by_signal():
        try:
            _submit(cluster, manifests)
            _follow(cluster, job)
        except Cancelled:
            _remove(cluster, manifests)
            raise
        except CliprdError as error:
            if not error.retryable:
                with contextlib.suppress(CliprdError):  # its own failure is not what is to be told
                    _remove(cluster, manifests)
            raise


def _submit(cluster: Cluster, manifests: Sequence[Mapping[str, Any]]) -> None:
    job = manifests[-1]
    name = f"{job['kind']} {cluster.namespace}/{job['metadata']['name']}"
    there = [found for tree in manifests if (found := cluster.look(tree))]
    if any(_ended(found) or found["metadata"].get("deletionTimestamp") for found in there):
        _say(f"{name} of an earlier try has ended; it is made anew.")
        _remove(cluster, manifests)
        _await_gone(cluster, manifests)
    made = [cluster.make(tree) for tree in manifests]
    _say(f"{name} is {'submitted' if made[-1] else 'there already and runs; it is followed'}.")


def _follow(cluster: Cluster, job: Mapping[str, Any]) -> None:
    told: dict[str, str] = {}
    heard = time.monotonic()
    while True:
        try:
            found, pods = cluster.look(job), cluster.pods(job)
            heard = time.monotonic()
        except RetryableError:
            if time.monotonic() - heard > LOST_SECONDS:
                raise
        else:
            if found is None:
                raise RetryableError("The job was removed by others.", "Try again.")
            for subject, state in ((job["kind"], _state(found)), *((pod.metadata.name, _phase(pod)) for pod in pods)):
                if told.get(subject) != state:
                    told[subject] = state
                    _say(f"{subject}: {state}")
            endings = [ending for pod in pods if (ending := _ending(pod))]
            final = [ending for ending in endings if ending.code in FINAL_CODES]
            if _ended(found) == "succeeded":
                return
            if final:
                raise _failure(final[0])
            if _ended(found):
                raise _given_up(found, endings)
        time.sleep(POLL_SECONDS)


def _conditions(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in (job.get("status") or {}).get("conditions") or [] if one.get("status") == "True"]


def _ended(job: Mapping[str, Any]) -> str:
    """succeeded, failed, or nothing yet."""
    kinds = {one["type"] for one in _conditions(job)}
    if kinds & {"Complete", "Succeeded"}:
        return "succeeded"
    return "failed" if "Failed" in kinds else ""


def _state(job: Mapping[str, Any]) -> str:
    last = _conditions(job)[-1:]
    return " ".join(f"{one['type']} ({one.get('reason') or '-'})" for one in last).lower() or "created"


def _phase(pod: Any) -> str:
    statuses = pod.status.container_statuses or []
    waits = [s.state.waiting.reason for s in statuses if s.state and s.state.waiting and s.state.waiting.reason]
    tries = max((s.restart_count or 0 for s in statuses), default=0)
    again = f", started again {tries} times" if tries else ""
    return f"{waits[0] if waits else str(pod.status.phase).lower()}{again}"


def _ending(pod: Any) -> Ending | None:
    for status in pod.status.container_statuses or []:
        for state in (status.state, status.last_state):
            if state and state.terminated and state.terminated.exit_code:
                said = _SAID.findall(state.terminated.message or "")
                words = said[-1] if said else state.terminated.reason or ""
                return Ending(str(pod.metadata.name), int(state.terminated.exit_code), words)
    return None


def _failure(ending: Ending) -> Exception:
    words = f"Pod {ending.pod}: {ending.words or f'exit code {ending.code}'}"
    for kind in CliprdError.__subclasses__():
        if kind.exit_code == ending.code:
            return kind(words)
    return CliprdError(words)  # a defect, with exit code 1


def _given_up(job: Mapping[str, Any], endings: Sequence[Ending]) -> RetryableError:
    (why,) = (one for one in _conditions(job) if one["type"] == "Failed")
    said = f"{why.get('reason') or 'Failed'}: {why.get('message') or '-'}".rstrip(".")
    last = f" Pod {endings[0].pod} said: {endings[0].words or f'exit code {endings[0].code}'}" if endings else ""
    return RetryableError(f"The job has failed ({said}).{last}", "It goes on from its last checkpoint.")


def _remove(cluster: Cluster, manifests: Sequence[Mapping[str, Any]]) -> None:
    for tree in reversed(manifests):  # the job before what it refers to
        cluster.remove(tree)


def _await_gone(cluster: Cluster, manifests: Sequence[Mapping[str, Any]]) -> None:
    until = time.monotonic() + GONE_SECONDS
    while any(cluster.look(tree) for tree in manifests):
        if time.monotonic() > until:
            raise RetryableError(f"The job of an earlier try does not go away in {GONE_SECONDS:.0f} s.", "Try again.")
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM, by which Kubernetes ends a pod whose run was cancelled, comes out as `Cancelled`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # the second does not stop what the first has begun
        raise Cancelled("The run was cancelled; the job is removed.", "What it has done so far stays in its output.")

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(f"cliprd: {text}", file=sys.stderr, flush=True)
