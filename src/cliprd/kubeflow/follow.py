"""Follow a run on a cluster: a line whenever a step's state changes, and at the end why it failed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cliprd.errors import CliprdError, RetryableError
from cliprd.kubeflow.client import Api
from cliprd.kubeflow.submit import Submission, dags
from cliprd.kubeflow.versions import documents
from cliprd.kubeflow.workflow import FINAL, RunStep, WorkflowNode, from_details, from_workflow, run_steps

POLL_SECONDS = 5.0
STUCK_SECONDS = 120.0  # a longer wait is reported; then again each time it has doubled
LOST_SECONDS = 600.0  # the server may be away for this long: an upgrade, a port-forward that is restarted
_TROUBLE = re.compile(r"ImagePull|ErrImage|InvalidImageName|Unschedulable|CreateContainerConfig|CreateContainerError")
_RAISED = re.compile(r"[\w.]*(Error|Exception|Killed|Interrupt)\b")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(CliprdError):
    """A run on the cluster ended, and did not succeed."""


def follow(api: Api, run: Any, submission: Submission, *, timeout: float | None) -> None:
    """Wait for the end of a run.

    Args:
        api: the connection.
        run: as returned by `submit`.
        submission: what runs.
        timeout: seconds; None: no limit.

    Raises:
        RunFailed: it did not succeed; names the step and its message. RetryableError: not over within the timeout, or
            the server was away for long. InputError: the server refuses us.
    """
    begun = time.monotonic()
    watch = _Watch(api, run.run_id, submission)
    try:
        while True:
            current, steps = watch.look()
            state = str(current.state or "PENDING")
            watch.show(steps, state)
            if state in FINAL:
                break
            if timeout is not None and time.monotonic() - begun > timeout:
                raise RetryableError(
                    f"The run is still {state.lower()} after {_span(timeout)}; last reported: {watch.last_line}",
                    f"It continues: {api.link('runs', run.run_id)}",
                )
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"cliprd: the run continues: {api.link('runs', run.run_id)}", file=sys.stderr)
        raise
    if state != "SUCCEEDED":
        raise _failure(api, current, steps, state)
    print(f"run {current.display_name}: succeeded")


@dataclass
class _Seen:
    state: str
    since: float
    report_after: float
    trouble: str = ""

    def due(self) -> bool:
        """Whether the wait is to be reported now."""
        if time.monotonic() - self.since < self.report_after:
            return False
        self.report_after *= 2
        return True


class _Watch:
    """Looks at a run; prints each change once, and what has waited for long."""

    def __init__(self, api: Api, run_id: str, submission: Submission) -> None:
        self._api, self._run_id, self._submission = api, run_id, submission
        spec, _ = documents(submission.text)
        graphs = dags(spec)
        self._tasks = [
            name
            for graph in graphs.values()
            for name, task in graph["tasks"].items()
            if "executorLabel" in spec["components"][task["componentRef"]["name"]]
        ]
        self._outer = set(graphs["root"]["tasks"])
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        runs = submission.arguments.get("runs", inputs.get("runs", {}).get("defaultValue", []))
        self._iterations = [f"{run['method']}-{int(run['seed'])}" for run in runs if {"method", "seed"} <= set(run)]
        self._seen: dict[str, _Seen] = {}
        self._old_api = True
        self.last_line = "no step has begun."

    def look(self) -> tuple[Any, list[RunStep]]:
        """The run and its steps; retries for a while when the server is away."""
        lost: float | None = None
        while True:
            try:
                run = self._api.client._run_api.run_service_get_run(run_id=self._run_id)
                return run, run_steps(self._nodes(run), self._tasks, self._outer, self._iterations)
            except RetryableError as error:
                now = time.monotonic()
                if lost is None:
                    lost = now
                    print(f"cliprd: {error.problem} Retrying.", file=sys.stderr, flush=True)
                if now - lost > LOST_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)

    def show(self, steps: Sequence[RunStep], state: str) -> None:
        """Print what is new."""
        now = time.monotonic()
        for step in steps:
            again = step.attempt > 1 and step.state in ("pending", "running", "retrying")
            text = f"{step.state}, attempt {step.attempt}" if again else step.state
            seen = self._seen.get(step.label)
            if seen is None or seen.state != text:
                self._seen[step.label] = _Seen(text, now, STUCK_SECONDS)
                took = step.seconds if step.state in ("succeeded", "failed") else None
                self._print(f"{step.label}: {text}{f' after {_span(took)}' if took is not None else ''}")
            if step.state in ("pending", "starting"):
                self._show_wait(step)
        if not steps and state not in FINAL:
            seen = self._seen.setdefault("", _Seen("", now, STUCK_SECONDS))
            if seen.due():
                self._print(
                    f"no step after {_span(now - seen.since)}: is Argo's workflow-controller running, and has the"
                    " namespace quota?"
                )

    def _nodes(self, run: Any) -> dict[str, WorkflowNode]:
        if self._old_api:
            try:
                answer = self._api.get(f"/apis/v1beta1/runs/{self._run_id}")
                manifest = answer["pipeline_runtime"].get("workflow_manifest")
                return from_workflow(json.loads(manifest)) if manifest else {}
            except RetryableError:
                raise
            except (CliprdError, KeyError, TypeError, ValueError):
                self._old_api = False  # a gateway that lets only v2 through
        return from_details((run.run_details.task_details if run.run_details else None) or [])

    def _show_wait(self, step: RunStep) -> None:
        seen, message = self._seen[step.label], " ".join(step.node.message.split())
        kind = match[0] if (match := _TROUBLE.search(message)) else ""
        if not seen.due() and kind in ("", seen.trouble):
            return
        seen.trouble = kind or seen.trouble  # reported at once, and once
        image = self._submission.image if step.state == "pending" else "of KFP's driver"
        if "Image" in kind:
            why = f"image {image} cannot be pulled: was it pushed, is the name right, may the namespace pull it?"
        elif message:
            why = "has the cluster a node with room for the step's resources?"
        else:
            why = f"can the cluster pull image {image}, and has it a node with the step's resources?"
        describe = f"kubectl -n {self._api.namespace or 'kubeflow'} describe pod {step.node.pod}"
        waited = time.monotonic() - seen.since
        duration = f" for {_span(waited)}" if waited >= 1 else ""
        cause = f"{message[:200]}; " if message else ""
        hint = f" See: {describe}" if step.node.pod else ""
        self._print(f"{step.label}: {step.state}{duration}: {cause}{why}{hint}")

    def _print(self, line: str) -> None:
        self.last_line = line
        print(line, flush=True)


def _failure(api: Api, run: Any, steps: Sequence[RunStep], state: str) -> RunFailed:
    link = f"See {api.link('runs', run.run_id)}"
    failed = [step for step in steps if step.state == "failed"]
    if not failed:
        message = (run.error.message if run.error else "") or "" if state == "CANCELED" else "no step of it failed"
        return RunFailed(f"run {run.display_name}: {state.lower()}{f': {message}' if message else ''}.", link)
    step = failed[0]
    message = _logged_error(api, run.run_id, step.node.pod) or step.node.message or "it left no message"
    more = f" Also failed: {', '.join(other.label for other in failed[1:])}." if failed[1:] else ""
    return RunFailed(f"run {run.display_name}: step {step.label} failed: {message.rstrip('.')}.{more}", link)


def _logged_error(api: Api, run_id: str, pod: str) -> str:
    """A step's error, from its pod's log; empty where there is none or the log is gone."""
    if not pod:
        return ""
    try:
        log = api.text(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
    except CliprdError:
        return ""
    lines = [line for line in (_ANSI.sub("", line).strip() for line in log.splitlines()) if line]
    ours = [line.partition("cliprd: error: ")[2] for line in lines if "cliprd: error: " in line]
    raised = [line for line in lines if _RAISED.match(line)]
    return next((errors[-1][:500] for errors in (ours, raised) if errors), "")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
