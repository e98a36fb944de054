"""Run a job on a cluster: create it, wait for its end, and end with its result.

A job's name is a digest of its content, so a caller that is restarted finds its job: one that still runs is followed,
one that has ended is removed and created again (the training reuses what is complete in its output).
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

from cliprd.errors import CliprdError, RetryableError, of_exit_code
from cliprd.kubeflow.trainjob.cluster import Cluster
from cliprd.kubeflow.trainjob.spec import FINAL_CODES

POLL_SECONDS = 5.0
LOST_SECONDS = 600.0  # the API may be away for as long: an upgrade of the control plane
GONE_SECONDS = 300.0  # for pods to end
SEEN_SECONDS = 60.0  # until Trainer's webhook, which reads from a cache, knows the runtime that was created just before
_LOGGED = re.compile(r"cliprd: error: (.*)")


class Cancelled(CliprdError):
    """The run was cancelled, and its job removed."""

    exit_code = 130


@dataclass(frozen=True)
class Ending:
    """How a pod's last attempt failed."""

    pod: str
    code: int
    message: str

    def __str__(self) -> str:
        return self.message or f"exit code {self.code}"


def run_job(cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> None:
    """Create the objects and wait until the last of them, the job, has succeeded. SIGTERM removes them.

    Raises:
        CliprdError: the job failed: of the class and with the message of its pod's error; a non-retryable one ends the
            job at once. RetryableError: somebody else removed the job, its engine gave up, or the API was away for
            long. MachineError: no such engine, or no right to use it.
    """
    with _ended_by_signal():
        try:
            _submit(cluster, objects)
            _follow(cluster, objects[-1])
        except Cancelled:
            _remove(cluster, objects)
            raise
        except CliprdError as error:
            if not error.retryable:
                with contextlib.suppress(CliprdError):  # it must not hide the error itself
                    _remove(cluster, objects)
            raise


def _submit(cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> None:
    job = objects[-1]
    name = f"{job['kind']} {cluster.namespace}/{job['metadata']['name']}"
    existing = [current for tree in objects if (current := cluster.get(tree))]
    if any(_ended(current) or current["metadata"].get("deletionTimestamp") for current in existing):
        _say(f"{name} of an earlier attempt has ended; it is created again.")
        _remove(cluster, objects)
        _await_gone(cluster, objects)
    created = [_create(cluster, tree) for tree in objects]
    _say(f"{name} is {'submitted' if created[-1] else 'there already and runs; it is followed'}.")


def _create(cluster: Cluster, tree: Mapping[str, Any]) -> bool:
    until = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            return cluster.create(tree)
        except RetryableError:
            if time.monotonic() > until:
                raise
        time.sleep(POLL_SECONDS)


def _follow(cluster: Cluster, job: Mapping[str, Any]) -> None:
    reported: dict[str, str] = {}
    endings: dict[str, Ending] = {}  # kept: the Training Operator deletes the pods before it calls the job failed
    answered = time.monotonic()
    while True:
        try:
            current, pods = cluster.get(job), cluster.pods(job)
            answered = time.monotonic()
        except RetryableError:
            if time.monotonic() - answered > LOST_SECONDS:
                raise
        else:
            if current is None:
                raise RetryableError("The job was removed by others.", "Try again.")
            for subject, state in {job["kind"]: _state(current), **{p.metadata.name: _phase(p) for p in pods}}.items():
                if reported.get(subject) != state:
                    reported[subject] = state
                    _say(f"{subject}: {state}")
            endings |= {ending.pod: ending for pod in pods if (ending := _ending(pod))}
            if _finished(current, [*endings.values()]):
                return
        time.sleep(POLL_SECONDS)


def _finished(job: Mapping[str, Any], endings: Sequence[Ending]) -> bool:
    """Whether the job has succeeded; raises the error with which it failed."""
    state = _ended(job)
    if state == "succeeded":
        return True
    for ending in endings:
        if ending.code in FINAL_CODES:
            raise of_exit_code(ending.code)(f"Pod {ending.pod}: {ending}")
    if state == "failed":
        (why,) = (condition for condition in _conditions(job) if condition["type"] == "Failed")
        reason = f"{why.get('reason') or 'Failed'}: {why.get('message') or '-'}".rstrip(".")
        last = f" Pod {endings[0].pod}: {endings[0]}" if endings else ""
        raise RetryableError(f"The job has failed ({reason}).{last}", "It resumes from its last checkpoint.")
    return False


def _conditions(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    conditions = (job.get("status") or {}).get("conditions") or []
    return [condition for condition in conditions if condition.get("status") == "True"]


def _ended(job: Mapping[str, Any]) -> str:
    """succeeded, failed, or nothing yet."""
    kinds = {condition["type"] for condition in _conditions(job)}
    if kinds & {"Complete", "Succeeded"}:
        return "succeeded"
    return "failed" if "Failed" in kinds else ""


def _state(job: Mapping[str, Any]) -> str:
    last = _conditions(job)[-1:]
    return (
        " ".join(f"{condition['type']} ({condition.get('reason') or '-'})" for condition in last).lower() or "created"
    )


def _phase(pod: Any) -> str:
    statuses = pod.status.container_statuses or []
    waits = [s.state.waiting.reason for s in statuses if s.state and s.state.waiting and s.state.waiting.reason]
    restarts = max((s.restart_count or 0 for s in statuses), default=0)
    again = f", restarted {restarts} times" if restarts else ""
    return f"{waits[0] if waits else str(pod.status.phase).lower()}{again}"


def _ending(pod: Any) -> Ending | None:
    for status in pod.status.container_statuses or []:
        for state in (status.state, status.last_state):
            if state and state.terminated and state.terminated.exit_code:
                logged = _LOGGED.findall(state.terminated.message or "")
                message = logged[-1] if logged else state.terminated.reason or ""
                return Ending(str(pod.metadata.name), int(state.terminated.exit_code), message)
    return None


def _remove(cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> None:
    for tree in reversed(objects):  # the job before what it refers to
        cluster.delete(tree)


def _await_gone(cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> None:
    until = time.monotonic() + GONE_SECONDS
    while any(cluster.get(tree) for tree in objects):
        if time.monotonic() > until:
            raise RetryableError(f"The job of an earlier attempt is not gone after {GONE_SECONDS:.0f} s.", "Try again.")
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM, by which Kubernetes ends a pod whose run was cancelled, is raised as `Cancelled`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the removal
        raise Cancelled("The run was cancelled; the job is removed.", "What it has done so far stays in its output.")

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(f"cliprd: {text}", file=sys.stderr, flush=True)
