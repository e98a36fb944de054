"""The steps of a run, from what Kubeflow Pipelines reports about it.

For every step Argo runs a driver's pod, `prepare-driver`, then a DAG of the step's name with a node `executor`, which
has children `executor(0)`, `executor(1)` where retries are allowed. Edges also lead on to the next step. All this, with
the reason for which a node waits or failed, is in the workflow that the v1 API still returns. The v2 API has name and
state of every node, but (as of 2.17) not its id, so that no graph can be built; it is the second choice.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_ITERATION = re.compile(r"iterations?\((\d+)[:)]")


@dataclass(frozen=True)
class WorkflowNode:
    """One of Argo's nodes.

    Attributes:
        name: as in its template: `prepare`, `prepare-driver`, `executor(0)`.
        state: in KFP's words: PENDING, RUNNING, SUCCEEDED, FAILED, SKIPPED; and OMITTED.
        seconds: how long it took, where it is over and known.
    """

    identity: str
    name: str
    state: str
    children: tuple[str, ...] = ()
    pod: str = ""
    message: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class RunStep:
    """A step of the pipeline in a run.

    Attributes:
        label: its name, and in a loop its iteration's: `distill (clip_kd-0)`.
        state: starting, pending, running, retrying, succeeded, cached, failed, canceled or skipped.
        node: whose pod and message count.
    """

    label: str
    state: str
    attempt: int
    node: WorkflowNode
    seconds: float | None


def from_workflow(workflow: Mapping[str, Any]) -> dict[str, WorkflowNode]:
    """Identity → node, of an Argo workflow."""
    name = workflow["metadata"]["name"]
    old_names = workflow["metadata"].get("annotations", {}).get("workflows.argoproj.io/pod-name-format") == "v1"
    nodes = {}
    for identity, node in (workflow.get("status", {}).get("nodes") or {}).items():
        pod = identity if old_names else f"{name}-{node.get('templateName', '')}-{identity.rpartition('-')[2]}"
        nodes[identity] = WorkflowNode(
            identity,
            node.get("displayName") or node.get("name", ""),
            str(node.get("phase") or "PENDING").upper().replace("ERROR", "FAILED"),
            tuple(node.get("children") or ()),
            pod,
            node.get("message") or "",
            _seconds(node.get("startedAt"), node.get("finishedAt")),
        )
    return nodes


def from_details(details: Iterable[Any]) -> dict[str, WorkflowNode]:
    """Identity → node, of the v2 API's task details: without children, pods and messages."""
    nodes = {}
    for task in details:
        state = str(task.state or "PENDING").replace("RUNTIME_STATE_UNSPECIFIED", "OMITTED")
        seconds = _seconds(task.start_time, task.end_time) if state in FINAL else None
        nodes[task.task_id] = WorkflowNode(task.task_id, task.display_name or "", state, seconds=seconds)
    return nodes


def run_steps(
    nodes: Mapping[str, WorkflowNode], tasks: Iterable[str], outer: set[str], iterations: list[str]
) -> list[RunStep]:
    """The steps that have begun, in the pipeline's order.

    Args:
        nodes: all nodes.
        tasks: names of the pipeline's steps, in its order.
        outer: names of the tasks outside loops.
        iterations: name of each iteration of the loop.
    """
    iteration_of = _iterations(nodes, outer)
    named: dict[tuple[str, int], list[WorkflowNode]] = {}
    for node in nodes.values():
        if node.state != "OMITTED":
            named.setdefault((node.name, iteration_of.get(node.identity, -1)), []).append(node)
    steps = []
    for task in tasks:
        for number in sorted({number for name, number in named if name in (task, f"{task}-driver")}):
            bodies, drivers = named.get((task, number), []), named.get((f"{task}-driver", number), [])
            iteration = iterations[number] if 0 <= number < len(iterations) else str(number + 1)
            label = task if number < 0 else f"{task} ({iteration})"
            for count, body in enumerate(bodies, start=1):
                steps.append(_step(label if len(bodies) == 1 else f"{label} {count}", body, nodes))
            if drivers and not bodies:
                state = "failed" if drivers[0].state == "FAILED" else "starting"
                steps.append(RunStep(label, state, 1, drivers[0], drivers[0].seconds))
    return steps


def _step(label: str, body: WorkflowNode, nodes: Mapping[str, WorkflowNode]) -> RunStep:
    pods = _pods(body, nodes)
    last, attempt = pods[-1] if pods else body, max(1, len(pods))
    if body.state in FINAL:
        cached = body.state == "SUCCEEDED" and bool(pods) and last.state == "SKIPPED"
        node = last if last.message or not body.message else body
        return RunStep(label, "cached" if cached else body.state.lower(), attempt, node, body.seconds)
    states = {"PENDING": "pending", "FAILED": "retrying"}
    return RunStep(label, states.get(last.state, "running"), attempt, last, None)


def _pods(body: WorkflowNode, nodes: Mapping[str, WorkflowNode]) -> list[WorkflowNode]:
    """The pods of a step, one an attempt, in order."""
    inner: dict[str, WorkflowNode] = {}
    waiting = list(body.children)
    while waiting:
        node = nodes.get(waiting.pop())
        if node and node.name.startswith("executor") and node.identity not in inner:
            inner[node.identity] = node
            waiting += node.children
    leaves = [node for node in inner.values() if not inner.keys() & set(node.children)]
    return sorted(leaves, key=lambda node: [int(number) for number in re.findall(r"\d+", node.name)])


def _iterations(nodes: Mapping[str, WorkflowNode], outer: set[str]) -> dict[str, int]:
    """Identity → iteration, of the nodes inside a loop; edges that leave the loop are not followed."""
    iteration_of: dict[str, int] = {}
    for node in nodes.values():
        if match := _ITERATION.search(node.name):
            waiting = list(node.children)
            while waiting:
                inner = nodes.get(waiting.pop())
                if inner and inner.identity not in iteration_of and inner.name.removesuffix("-driver") not in outer:
                    iteration_of[inner.identity] = int(match[1])
                    waiting += inner.children
    return iteration_of


def _seconds(start: Any, end: Any) -> float | None:
    if not start or not end:
        return None
    begun, over = (
        value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(str(value))
        for value in (start, end)
    )
    seconds = (over - begun).total_seconds()
    return seconds if seconds >= 0 else None  # Go's zero time means "not yet"
