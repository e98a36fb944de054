"""Follow a run on a cluster: a line whenever a step's state changes, and at the end why it failed.

KFP's API tells Argo's nodes: for every step a driver's pod, then a DAG of the step's name that holds `executor`, which
has children `executor(0)`, `executor(1)` where retries are allowed. Edges also lead on to the next step. What a node
waits for or died of stands only in the workflow that the v1 API still hands out, and in the pod's log; both are taken
where they can be had.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cliprd.errors import CliprdError, RetryableError
from pipelines.client import Api
from pipelines.submit import Order, dags
from pipelines.versions import documents

POLL_SECONDS = 5.0
STUCK_SECONDS = 120.0  # pending for longer is said; then again each time the wait has doubled
LOST_SECONDS = 600.0  # the server may be away for this long (an upgrade, a night's maintenance is longer)
FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_TROUBLE = re.compile(r"ImagePull|ErrImage|InvalidImageName|Unschedulable|CreateContainerConfig|CreateContainerError")
_ITERATION = re.compile(r"iterations?\((\d+)[:)]")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(CliprdError):
    """A run on the cluster ended otherwise than in success."""


@dataclass(frozen=True)
class Node:
    """One of Argo's nodes."""

    key: str
    """End of its id, the same in node ids and pod names."""
    name: str
    state: str
    pod: str
    children: tuple[str, ...]
    seconds: float | None
    """How long it took, where it is over."""


@dataclass(frozen=True)
class Step:
    """A step of the pipeline as a person thinks of it."""

    label: str
    task: str
    state: str
    """starting, pending, running, succeeded, cached, failed, canceled or skipped."""
    attempt: int
    pod: str
    node: str
    """Key of the node whose message counts."""
    seconds: float | None


@dataclass
class _Seen:
    state: str = ""
    since: float = 0.0
    say_after: float = field(default_factory=lambda: STUCK_SECONDS)


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
    printer = _Printer(api, run.run_id, ordered)
    try:
        while True:
            current = _get(api, run.run_id, begun if timeout is None else begun + timeout)
            state = current.state or "PENDING"
            found = steps(nodes(current), ordered)
            printer.show(found, state)
            if state in FINAL:
                break
            if timeout is not None and time.monotonic() - begun > timeout:
                raise RetryableError(
                    f"The run is still {state.lower()} after {_span(timeout)}: {printer.last_word()}",
                    f"It goes on: {api.link('runs', run.run_id)}",
                )
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"cliprd: the run goes on: {api.link('runs', run.run_id)}", file=sys.stderr)
        raise
    if state != "SUCCEEDED":
        raise _failure(api, current, found, printer.messages(), state)
    print(f"run {current.display_name}: succeeded")


def nodes(run: Any) -> dict[str, Node]:
    """Key → node of what the server tells about a run."""
    details = (run.run_details.task_details if run.run_details else None) or []
    found = {}
    for task in details:
        key = _key(task.pod_name or task.task_id or "")
        children = tuple(_key(child.pod_name or child.task_id or "") for child in task.child_tasks or [])
        state = str(task.state or "RUNTIME_STATE_UNSPECIFIED")
        took = None
        if task.start_time and task.end_time and state in FINAL:
            took = max(0.0, (_time(task.end_time) - _time(task.start_time)).total_seconds())
        found[key] = Node(key, task.display_name or "", state, task.pod_name or "", children, took)
    return found


def steps(found: Mapping[str, Node], ordered: Order) -> list[Step]:
    """The steps that have begun, in the pipeline's order."""
    spec, _ = documents(ordered.text)
    graphs = dags(spec)
    tasks = [
        name for graph in graphs.values() for name, task in graph["tasks"].items()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    ]  # fmt: skip
    outer = set(graphs["root"]["tasks"])
    iteration = _iterations(found, outer)
    names = _loop_names(spec, ordered)
    made = []
    drivers = {(node.name, iteration.get(node.key)): node for node in found.values() if node.name.endswith("-driver")}
    places = {place for (_, place) in drivers} | {iteration.get(node.key) for node in found.values()}
    bodies = {(node.name, iteration.get(node.key)): node for node in found.values()}
    for task in tasks:
        for place in sorted(places, key=lambda value: -1 if value is None else value):
            body, driver = bodies.get((task, place)), drivers.get((f"{task}-driver", place))
            if (body or driver) is None:
                continue
            label = task if place is None else f"{task} ({names[place] if place < len(names) else place + 1})"
            made.append(_step(label, task, body, driver, found))
    return made


def _step(label: str, task: str, body: Node | None, driver: Node | None, found: Mapping[str, Node]) -> Step:
    inner = _executors(body, found) if body else []
    pods = [node for node in inner if not any(key in {other.key for other in inner} for key in node.children)]
    pods.sort(key=lambda node: [int(number) for number in re.findall(r"\d+", node.name)])
    last = pods[-1] if pods else None
    if body is None or (body.state not in FINAL and last is None):
        assert driver or body
        told = body or driver
        assert told
        if driver and driver.state == "FAILED":
            return Step(label, task, "failed", 1, driver.pod, driver.key, driver.seconds)
        return Step(label, task, "starting", 1, told.pod if told is driver else "", told.key, None)
    attempt = max(1, len(pods))
    pod, key = (last.pod, last.key) if last else (body.pod, body.key)
    if body.state in FINAL:
        state = body.state.lower()
        if body.state == "SUCCEEDED" and last is not None and last.state == "SKIPPED":
            state = "cached"
        return Step(label, task, state, attempt, pod, key, body.seconds)
    assert last
    state = {"PENDING": "pending", "RUNTIME_STATE_UNSPECIFIED": "pending", "FAILED": "retrying"}.get(
        last.state, "running"
    )
    return Step(label, task, state, attempt, pod, key, None)


def _executors(body: Node, found: Mapping[str, Node]) -> list[Node]:
    made: list[Node] = []
    open_ = list(body.children)
    while open_:
        node = found.get(open_.pop())
        if node and node.name.startswith("executor") and node not in made:
            made.append(node)
            open_ += node.children
    return made


def _iterations(found: Mapping[str, Node], outer: set[str]) -> dict[str, int]:
    """Key → iteration, of the nodes inside a loop; edges that leave the loop are not followed."""
    made: dict[str, int] = {}
    for node in found.values():
        if match := _ITERATION.search(node.name):
            open_ = list(node.children)
            while open_:
                inner = found.get(open_.pop())
                if inner is None or inner.key in made or inner.name.removesuffix("-driver") in outer:
                    continue
                made[inner.key] = int(match[1])
                open_ += inner.children
    return made


def _loop_names(spec: Mapping[str, Any], ordered: Order) -> list[str]:
    """What each iteration trains: `clip_kd-0`."""
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    runs = ordered.arguments.get("runs", inputs.get("runs", {}).get("defaultValue", []))
    return [f"{run['method']}-{int(run['seed'])}" for run in runs]


class _Printer:
    """Says each change once, and what has waited for long."""

    def __init__(self, api: Api, run_id: str, ordered: Order) -> None:
        self._api, self._run_id, self._ordered = api, run_id, ordered
        self._seen: dict[str, _Seen] = {}
        self._asked = False
        self._told = ""

    def show(self, found: Sequence[Step], state: str) -> None:
        self._asked = False
        for step in found:
            word = step.state + (f", attempt {step.attempt}" if step.attempt > 1 and step.state != "succeeded" else "")
            seen = self._seen.setdefault(step.label, _Seen())
            if word != seen.state:
                self._seen[step.label] = _Seen(word, time.monotonic())
                took = f" after {_span(step.seconds)}" if step.seconds and step.state in ("succeeded", "failed") else ""
                self._say(f"{step.label}: {word}{took}")
            if step.state in ("pending", "starting", "retrying"):
                self._waits(step)
        if not found and state not in FINAL:
            seen = self._seen.setdefault("", _Seen("waiting", time.monotonic()))
            if self._due(seen):
                self._say(
                    f"no step after {_span(time.monotonic() - seen.since)}: is Argo's workflow-controller running, and"
                    " does the namespace have quota?"
                )

    def messages(self) -> dict[str, str]:
        """Key → message of every node; empty where the server does not tell."""
        if not self._asked:
            self._asked, self._messages = True, _messages(self._api, self._run_id)
        return self._messages

    def last_word(self) -> str:
        return self._told or "no step has begun."

    def _waits(self, step: Step) -> None:
        seen = self._seen[step.label]
        message = self.messages().get(step.node, "")
        trouble = bool(_TROUBLE.search(message))
        if not (self._due(seen) or (trouble and not seen.state.endswith("!"))):
            return
        if trouble:
            seen.state += "!"  # said at once, once
        where = f"kubectl -n {self._api.namespace or 'kubeflow'} describe pod {step.pod}"
        long = f"{step.state} for {_span(time.monotonic() - seen.since)}"
        if "Image" in message:
            why = f"image {self._ordered.image} cannot be pulled: was it pushed, and may the namespace pull it?"
        elif message:
            why = "the cluster has no room for what it asks for?"
        else:
            why = f"can the cluster pull {self._ordered.image}, and has it a node with what the step asks for?"
        self._say(f"{step.label}: {long}: {f'{message[:200]}; ' if message else ''}{why} See: {where}")

    def _due(self, seen: _Seen) -> bool:
        if time.monotonic() - seen.since < seen.say_after:
            return False
        seen.say_after *= 2
        return True

    def _say(self, line: str) -> None:
        self._told = line
        print(line, flush=True)


def _get(api: Api, run_id: str, _deadline: float) -> Any:
    """The run; a server that is away for a while is waited for."""
    lost: float | None = None
    while True:
        try:
            return api.client._run_api.run_service_get_run(run_id=run_id)
        except RetryableError as error:
            now = time.monotonic()
            if lost is None:
                lost = now
                print(f"cliprd: {error.problem} Trying on.", file=sys.stderr, flush=True)
            if now - lost > LOST_SECONDS:
                raise
            time.sleep(POLL_SECONDS)


def _messages(api: Api, run_id: str) -> dict[str, str]:
    try:
        told = api.get(f"/apis/v1beta1/runs/{run_id}")
        workflow = json.loads(told["pipeline_runtime"]["workflow_manifest"])
        found = workflow["status"].get("nodes") or {}
        return {_key(identity): node["message"] for identity, node in found.items() if node.get("message")}
    except (CliprdError, KeyError, TypeError, ValueError):
        return {}


def _failure(api: Api, run: Any, found: Sequence[Step], messages: Mapping[str, str], state: str) -> RunFailed:
    link = f"See {api.link('runs', run.run_id)}"
    failed = [step for step in found if step.state == "failed"]
    if state == "CANCELED" and not failed:
        return RunFailed(f"run {run.display_name}: canceled.", link)
    if not failed:
        said = (run.error.message if run.error else "") or next(iter(messages.values()), "no step of it failed")
        return RunFailed(f"run {run.display_name}: {state.lower()}: {said.rstrip('.')}.", link)
    step = failed[0]
    said = _last_words(api, run.run_id, step.pod) or messages.get(step.node, "") or "its log has no message"
    more = f" ({len(failed) - 1} more failed: {', '.join(other.label for other in failed[1:])})" if failed[1:] else ""
    return RunFailed(f"run {run.display_name}: step {step.label} failed: {said.rstrip('.')}.{more}", link)


def _last_words(api: Api, run_id: str, pod: str) -> str:
    """The message of a step, out of its log."""
    try:
        log = api.text(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
    except CliprdError:
        return ""
    lines = [line for line in (_ANSI.sub("", line).strip() for line in log.splitlines()) if line]
    ours = [line.partition("cliprd: error: ")[2] for line in lines if "cliprd: error: " in line]
    if ours:
        return ours[-1][:500]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Killed)\b", line)]
    return raised[-1][:500] if raised else ""


def _key(identity: str) -> str:
    return identity.rpartition("-")[2]


def _time(value: Any) -> datetime.datetime:
    return value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(str(value))


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
