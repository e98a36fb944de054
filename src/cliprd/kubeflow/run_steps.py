"""The steps of a run, from its workflow's nodes.

For every task KFP runs a driver, the node `<task>-driver`, which decides what the task's pod is or that the cache has
its result, then the node of the task, with `executor`, the pod, in it. Loops, conditions and the whole have drivers
too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.workflow import FAILED, Place, Workflow, WorkflowNode

_ITERATION = re.compile(r"iteration-iterations\((\d+):")
_LOOP_DRIVERS = {"iteration-driver", "iteration-item-driver"}
_UNSAID = re.compile(r"No more retries left|[Cc]hild '?.*'? failed|when '.*' evaluated|omitted:|Backoff|retry exceeded")
DEADLINE = "exceeded (its|workflow) deadline|specified deadline"  # Argo's and Kubernetes' words for too late
_STOPPED = re.compile(rf"{DEADLINE}|shutdown with strategy|[Ss]topped with strategy|exit code 1(37|43)|pod deleted|^$")


@dataclass(frozen=True)
class RunStep:
    """A step of the pipeline in a run.

    Attributes:
        label: its name, and in a loop its iteration's: `distill (clip_kd-0)`.
        task: its name in the pipeline; empty: the driver of a loop, a condition or the whole.
        state: starting, pending, running, retrying, succeeded, cached, failed, canceled or skipped.
        attempt: number of its last pod, from 1.
        node: the last pod, or what stands in its place; None: not known.
        message: what Argo says of it.
        driver: whether this is about KFP's driver, and not the step's own pod.
        started: time, in a form that sorts.
        lost: number and pod of the attempts that failed, in order.
        backoff: Argo's word about the next attempt.
    """

    label: str
    task: str
    state: str
    attempt: int = 1
    node: WorkflowNode | None = None
    message: str = ""
    seconds: float | None = None
    driver: bool = False
    started: str = ""
    lost: tuple[tuple[int, WorkflowNode], ...] = ()
    backoff: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("succeeded", "cached", "failed", "canceled", "skipped")

    @property
    def last_lost(self) -> WorkflowNode | None:
        """The pod that failed last, or what failed without one; None: not known."""
        return self.lost[-1][1] if self.lost else self.node


def run_steps(workflow: Workflow, outline: Outline) -> list[RunStep]:
    """The steps that have begun, oldest first, with the drivers of loops, conditions and the whole.

    Args:
        workflow: where all is taken from.
        outline: the pipeline.
    """
    at: dict[Place, list[WorkflowNode]] = defaultdict(list)
    for node in workflow.nodes:
        if node.phase != "Omitted" and node.place:
            at[node.place].append(node)
    steps: list[RunStep] = []
    seen: set[Place] = set()
    for place, nodes in list(at.items()):
        *around, name = place
        task = name.removesuffix("-driver")
        graph = place[-2] if name == "iteration-iterations" and len(place) > 1 else name
        if task in outline.tasks:
            key = (*around, task)
            if key not in seen:
                seen.add(key)
                steps.append(_step(_label(key, outline), key, at, stopped=workflow.stopped))
        elif name.endswith("-driver"):
            steps.append(_driver(_label(place, outline), "", nodes, stopped=workflow.stopped))
        elif graph in outline.inside and all(node.kind == "Skipped" for node in nodes):
            started = nodes[0].started
            steps += [RunStep(_label((*around, leaf), outline), leaf, "skipped", started=started)
                      for leaf in outline.inside[graph]]  # fmt: skip
    return _numbered(sorted(steps, key=lambda step: (step.started or "~", step.label)))


def innermost_failure(workflow: Workflow) -> str:
    """Argo's word about a failure that is no step's: of the deepest node that has one, or of the whole."""
    said = [
        node for node in workflow.nodes if node.phase in FAILED and node.message and not _UNSAID.search(node.message)
    ]
    if said:
        return max(said, key=lambda node: len(node.place)).message
    return workflow.message


def _step(label: str, place: Place, at: Mapping[Place, list[WorkflowNode]], *, stopped: bool) -> RunStep:
    task = place[-1]
    body = _latest(at.get(place, []))
    drivers = at.get((*place[:-1], f"{task}-driver"), [])
    driver = _latest(drivers)
    if driver and (body is None or body.turn < driver.turn[: len(body.turn)]):
        return _driver(label, task, drivers, stopped=stopped)
    assert body is not None
    nodes = [node for where, some in at.items() if where[: len(place)] == place for node in some]
    started = driver.started if driver else body.started
    return _judged(label, task, body, nodes, stopped=stopped, started=started)


def _driver(label: str, task: str, nodes: Sequence[WorkflowNode], *, stopped: bool) -> RunStep:
    current = _latest(nodes)
    assert current is not None
    step = _judged(label, task, current, nodes, stopped=stopped, started=current.started)
    state = step.state if step.state in ("failed", "canceled", "retrying") else "starting"
    if not task and step.state in ("succeeded", "skipped"):
        state = step.state
    return replace(step, state=state, driver=True)


def _judged(
    label: str, task: str, current: WorkflowNode, nodes: Sequence[WorkflowNode], *, stopped: bool, started: str
) -> RunStep:
    """State of a step or driver from its outermost node and all nodes in it."""
    leaves = sorted((node for node in nodes if node.leaf), key=lambda node: node.turn)
    pods = [leaf for leaf in leaves if leaf.kind != "Skipped"]
    now = [leaf for leaf in leaves if leaf.turn[: len(current.turn)] == current.turn]
    last = now[-1] if now else None
    lost = tuple((number, pod) for number, pod in enumerate(pods, start=1) if pod.phase in FAILED)
    deepest = sorted((node for node in nodes if not node.leaf), key=lambda node: (node.turn, node.place), reverse=True)
    messages = [node.message for node in [*([last] if last else []), *deepest]]
    message = next((text for text in messages if text and not _UNSAID.search(text)), "")
    backoff = next((text for text in messages if text.startswith("Backoff")), "")
    state = _state(current, last, ran=any(leaf.kind != "Skipped" for leaf in now))
    if state == "failed" and stopped and _STOPPED.search(message):
        state = "canceled"
    seconds = current.seconds if state in ("succeeded", "failed") else None
    return RunStep(
        label,
        task,
        state,
        max(1, len(pods)),
        last or current,
        message,
        seconds,
        started=started,
        lost=lost,
        backoff=backoff,
    )


def _state(current: WorkflowNode, last: WorkflowNode | None, *, ran: bool) -> str:
    if current.phase in FAILED:
        return "failed"
    if current.phase == "Skipped":
        return "skipped"
    if current.phase == "Succeeded":
        return "succeeded" if ran or last is None else "cached"
    if last is None or last.phase == "Pending":
        return "pending"
    return "retrying" if last.phase in FAILED else "running"


def _latest(nodes: Sequence[WorkflowNode]) -> WorkflowNode | None:
    """The outermost of the nodes of one place, of its latest turn."""
    outermost = min((len(node.turn) for node in nodes), default=0)
    return max((node for node in nodes if len(node.turn) == outermost), key=lambda node: node.turn, default=None)


def _label(place: Place, outline: Outline) -> str:
    """Name of a task, with the iteration of each loop around it."""
    loops = [
        outline.iteration(place[depth - 1], int(match[1]))
        for depth, name in enumerate(place)
        if depth and (match := _ITERATION.match(name))
    ]
    name = place[-1]
    if name in _LOOP_DRIVERS:
        depth = next(
            (depth for depth, part in reversed(list(enumerate(place))) if _ITERATION.match(part)), len(place) - 1
        )
        name = f"{place[depth - 1]}-driver"
    return f"{name} ({', '.join(loops)})" if loops else name


def _numbered(steps: Sequence[RunStep]) -> list[RunStep]:
    """Tasks of one name in different parts of the pipeline get numbers."""
    count: dict[str, int] = defaultdict(int)
    numbered = []
    for step in steps:
        count[step.label] += 1
        label = step.label if count[step.label] == 1 else f"{step.label} {count[step.label]}"
        numbered.append(replace(step, label=label))
    return numbered
