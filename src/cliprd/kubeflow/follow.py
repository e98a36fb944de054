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
from cliprd.kubeflow.submit import Order, dags
from cliprd.kubeflow.versions import documents
from cliprd.kubeflow.workflow import FINAL, Node, Step, from_details, from_workflow, steps

POLL_SECONDS = 5.0
STUCK_SECONDS = 120.0  # waiting for longer is said; then again each time the wait has doubled
LOST_SECONDS = 600.0  # the server may be away for this long: an upgrade, a port-forward that is opened anew
_TROUBLE = re.compile(r"ImagePull|ErrImage|InvalidImageName|Unschedulable|CreateContainerConfig|CreateContainerError")
_RAISED = re.compile(r"[\w.]*(Error|Exception|Killed|Interrupt)\b")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(CliprdError):
    """A run on the cluster ended otherwise than in success."""


def follow(api: Api, run: Any, ordered: Order, *, timeout: float | None) -> None:
    """Wait for the end of a run.

    Args:
        api: the connection.
        run: as `submit` gives it.
        ordered: what runs.
        timeout: seconds; None: for ever.

    Raises:
        RunFailed: it did not succeed; names the step and its message. RetryableError: not over within the timeout, or
            the server was away for long. InputError: the server refuses us.
    """
    begun = time.monotonic()
    watch = _Watch(api, run.run_id, ordered)
    try:
        while True:
            current, found = watch.look()
            state = str(current.state or "PENDING")
            watch.show(found, state)
            if state in FINAL:
                break
            if timeout is not None and time.monotonic() - begun > timeout:
                raise RetryableError(
                    f"The run is still {state.lower()} after {_span(timeout)}; the last word: {watch.told}",
                    f"It goes on: {api.link('runs', run.run_id)}",
                )
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"cliprd: the run goes on: {api.link('runs', run.run_id)}", file=sys.stderr)
        raise
    if state != "SUCCEEDED":
        raise _failure(api, current, found, state)
    print(f"run {current.display_name}: succeeded")


@dataclass
class _Seen:
    state: str
    since: float
    say_after: float
    trouble: str = ""


class _Watch:
    """Looks at a run; says each change once, and what has waited for long."""

    def __init__(self, api: Api, run_id: str, ordered: Order) -> None:
        self._api, self._run_id, self._ordered = api, run_id, ordered
        spec, _ = documents(ordered.text)
        graphs = dags(spec)
        components = spec["components"]
        self._tasks = [
            name
            for graph in graphs.values()
            for name, task in graph["tasks"].items()
            if "executorLabel" in components[task["componentRef"]["name"]]
        ]
        self._outer = set(graphs["root"]["tasks"])
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        runs = ordered.arguments.get("runs", inputs.get("runs", {}).get("defaultValue", []))
        self._iterations = [f"{run['method']}-{int(run['seed'])}" for run in runs if {"method", "seed"} <= set(run)]
        self._seen: dict[str, _Seen] = {}
        self._old_api = True
        self.told = "no step has begun."

    def look(self) -> tuple[Any, list[Step]]:
        """The run and its steps; a server that is away for a while is waited for."""
        lost: float | None = None
        while True:
            try:
                run = self._api.client._run_api.run_service_get_run(run_id=self._run_id)
                return run, steps(self._nodes(run), self._tasks, self._outer, self._iterations)
            except RetryableError as error:
                now = time.monotonic()
                if lost is None:
                    lost = now
                    print(f"cliprd: {error.problem} Trying on.", file=sys.stderr, flush=True)
                if now - lost > LOST_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)

    def show(self, found: Sequence[Step], state: str) -> None:
        """Say what is new."""
        now = time.monotonic()
        for step in found:
            again = step.attempt > 1 and step.state in ("pending", "running", "retrying")
            word = f"{step.state}, attempt {step.attempt}" if again else step.state
            seen = self._seen.get(step.label)
            if seen is None or seen.state != word:
                self._seen[step.label] = _Seen(word, now, STUCK_SECONDS)
                took = step.seconds if step.state in ("succeeded", "failed") else None
                self._say(f"{step.label}: {word}{f' after {_span(took)}' if took is not None else ''}")
            if step.state in ("pending", "starting"):
                self._waits(step)
        if not found and state not in FINAL:
            seen = self._seen.setdefault("", _Seen("", now, STUCK_SECONDS))
            if _due(seen):
                self._say(
                    f"no step after {_span(now - seen.since)}: is Argo's workflow-controller running, and has the"
                    " namespace quota?"
                )

    def _nodes(self, run: Any) -> dict[str, Node]:
        if self._old_api:
            try:
                told = self._api.get(f"/apis/v1beta1/runs/{self._run_id}")
                if manifest := told["pipeline_runtime"].get("workflow_manifest"):
                    return from_workflow(json.loads(manifest))
                return {}
            except RetryableError:
                raise
            except (CliprdError, KeyError, TypeError, ValueError):
                self._old_api = False  # a gateway that lets only v2 through
        return from_details((run.run_details.task_details if run.run_details else None) or [])

    def _waits(self, step: Step) -> None:
        seen, message = self._seen[step.label], " ".join(step.node.message.split())
        kind = match[0] if (match := _TROUBLE.search(message)) else ""
        if not _due(seen) and kind in ("", seen.trouble):
            return
        seen.trouble = kind or seen.trouble  # said at once, and once
        image = self._ordered.image if step.state == "pending" else "of KFP's driver"
        if "Image" in kind:
            why = f"image {image} cannot be pulled: was it pushed, is the name right, may the namespace pull it?"
        elif message:
            why = "has the cluster a node with room for what the step asks for?"
        else:
            why = f"can the cluster pull image {image}, and has it a node with what the step asks for?"
        pod = (
            f" See: kubectl -n {self._api.namespace or 'kubeflow'} describe pod {step.node.pod}"
            if step.node.pod
            else ""
        )
        waited = time.monotonic() - seen.since
        long = f" for {_span(waited)}" if waited >= 1 else ""
        self._say(f"{step.label}: {step.state}{long}: {f'{message[:200]}; ' if message else ''}{why}{pod}")

    def _say(self, line: str) -> None:
        self.told = line
        print(line, flush=True)


def _due(seen: _Seen) -> bool:
    if time.monotonic() - seen.since < seen.say_after:
        return False
    seen.say_after *= 2
    return True


def _failure(api: Api, run: Any, found: Sequence[Step], state: str) -> RunFailed:
    link = f"See {api.link('runs', run.run_id)}"
    failed = [step for step in found if step.state == "failed"]
    if not failed:
        said = (run.error.message if run.error else "") or "" if state == "CANCELED" else "no step of it failed"
        return RunFailed(f"run {run.display_name}: {state.lower()}{f': {said}' if said else ''}.", link)
    step = failed[0]
    said = _last_words(api, run.run_id, step.node.pod) or step.node.message or "it left no message"
    more = f" Also failed: {', '.join(other.label for other in failed[1:])}." if failed[1:] else ""
    return RunFailed(f"run {run.display_name}: step {step.label} failed: {said.rstrip('.')}.{more}", link)


def _last_words(api: Api, run_id: str, pod: str) -> str:
    """The message of a step, out of its pod's log; empty where neither is there any more."""
    if not pod:
        return ""
    try:
        log = api.text(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
    except CliprdError:
        return ""
    lines = [line for line in (_ANSI.sub("", line).strip() for line in log.splitlines()) if line]
    ours = [line.partition("cliprd: error: ")[2] for line in lines if "cliprd: error: " in line]
    raised = [line for line in lines if _RAISED.match(line)]
    return next((told[-1][:500] for told in (ours, raised) if told), "")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
