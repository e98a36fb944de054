"""The steps of a run, out of what Kubeflow Pipelines tells about it.

Argo runs for every step a driver's pod, `prepare-driver`, then a DAG of the step's name that holds `executor`, which
has children `executor(0)`, `executor(1)` where retries are allowed. Edges also lead on to the next step. All this, with
what a node waits for or died of, stands in the workflow that the v1 API still hands out. The v2 API tells name and
state of every node, but (as of 2.17) not its id, so that there nothing can be put together; it is the second choice.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_PHASES = {"ERROR": "FAILED", "OMITTED": "OMITTED"}
_ITERATION = re.compile(r"iterations?\((\d+)[:)]")


@dataclass(frozen=True)
class Node:
    """One of Argo's nodes."""

    identity: str
    name: str
    """As it stands in its template: `prepare`, `prepare-driver`, `executor(0)`."""
    state: str
    """As KFP says: PENDING, RUNNING, SUCCEEDED, FAILED, SKIPPED; and OMITTED."""
    children: tuple[str, ...] = ()
    pod: str = ""
    message: str = ""
    seconds: float | None = None
    """How long it took, where it is over and known."""


@dataclass(frozen=True)
class Step:
    """A step of the pipeline as a person thinks of it."""

    label: str
    """Its name, and in a loop its iteration's: `distill (clip_kd-0)`."""
    state: str
    """starting, pending, running, retrying, succeeded, cached, failed, canceled or skipped."""
    attempt: int
    node: Node
    """Whose pod and message count."""
    seconds: float | None


def from_workflow(workflow: Mapping[str, Any]) -> dict[str, Node]:
    """Identity → node, of an Argo workflow."""
    name = workflow["metadata"]["name"]
    old_names = workflow["metadata"].get("annotations", {}).get("workflows.argoproj.io/pod-name-format") == "v1"
    found = {}
    for identity, node in (workflow.get("status", {}).get("nodes") or {}).items():
        pod = identity if old_names else f"{name}-{node.get('templateName', '')}-{identity.rpartition('-')[2]}"
        phase = str(node.get("phase") or "PENDING").upper()
        found[identity] = Node(
            identity,
            node.get("displayName") or node.get("name", ""),
            _PHASES.get(phase, phase),
            tuple(node.get("children") or ()),
            pod,
            node.get("message") or "",
            _seconds(node.get("startedAt"), node.get("finishedAt")),
        )
    return found


def from_details(details: Iterable[Any]) -> dict[str, Node]:
    """Identity → node, of the v2 API's task details: without children, pods and messages."""
    found = {}
    for task in details:
        state = str(task.state or "PENDING").replace("RUNTIME_STATE_UNSPECIFIED", "OMITTED")
        seconds = _seconds(task.start_time, task.end_time) if state in FINAL else None
        found[task.task_id] = Node(task.task_id, task.display_name or "", state, seconds=seconds)
    return found


def steps(found: Mapping[str, Node], tasks: Iterable[str], outer: set[str], iterations: list[str]) -> list[Step]:
    """The steps that have begun, in the pipeline's order.

    Args:
        found: all nodes.
        tasks: names of the pipeline's steps, in its order.
        outer: names of what stands outside loops.
        iterations: what each iteration of the loop is called.
    """
    places = _iterations(found, outer)
    at: dict[tuple[str, int], list[Node]] = {}
    for node in found.values():
        at.setdefault((node.name, places.get(node.identity, -1)), []).append(node)
    made = []
    for task in tasks:
        for place in sorted({place for name, place in at if name in (task, f"{task}-driver")}):
            bodies = [node for node in at.get((task, place), []) if node.state != "OMITTED"]
            drivers = [node for node in at.get((f"{task}-driver", place), []) if node.state != "OMITTED"]
            name = iterations[place] if 0 <= place < len(iterations) else str(place + 1)
            label = task if place < 0 else f"{task} ({name})"
            for number, body in enumerate(bodies, start=1):
                made.append(_of_body(label if len(bodies) == 1 else f"{label} {number}", body, found))
            if drivers and not bodies:
                state = "failed" if drivers[0].state == "FAILED" else "starting"
                made.append(Step(label, state, 1, drivers[0], drivers[0].seconds))
    return made


def _of_body(label: str, body: Node, found: Mapping[str, Node]) -> Step:
    pods = _pods(body, found)
    last = pods[-1] if pods else body
    if body.state in FINAL:
        cached = body.state == "SUCCEEDED" and bool(pods) and last.state == "SKIPPED"
        told = last if last.message or not body.message else body
        return Step(label, "cached" if cached else body.state.lower(), max(1, len(pods)), told, body.seconds)
    states = {"PENDING": "pending", "FAILED": "retrying"}
    return Step(label, states.get(last.state, "running"), max(1, len(pods)), last, None)


def _pods(body: Node, found: Mapping[str, Node]) -> list[Node]:
    """The pods of a step, one an attempt, in order."""
    inner: dict[str, Node] = {}
    open_ = list(body.children)
    while open_:
        node = found.get(open_.pop())
        if node and node.name.startswith("executor") and node.identity not in inner:
            inner[node.identity] = node
            open_ += node.children
    leaves = [node for node in inner.values() if not inner.keys() & set(node.children)]
    return sorted(leaves, key=lambda node: [int(number) for number in re.findall(r"\d+", node.name)])


def _iterations(found: Mapping[str, Node], outer: set[str]) -> dict[str, int]:
    """Identity → iteration, of the nodes inside a loop; edges that leave the loop are not followed."""
    made: dict[str, int] = {}
    for node in found.values():
        if match := _ITERATION.search(node.name):
            open_ = list(node.children)
            while open_:
                inner = found.get(open_.pop())
                if inner and inner.identity not in made and inner.name.removesuffix("-driver") not in outer:
                    made[inner.identity] = int(match[1])
                    open_ += inner.children
    return made


def _seconds(start: Any, end: Any) -> float | None:
    if not start or not end:
        return None
    took = (_time(end) - _time(start)).total_seconds()
    return took if took >= 0 else None  # Go's zero time stands for "not yet"


def _time(value: Any) -> datetime.datetime:
    return value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(str(value))
