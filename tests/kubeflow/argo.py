"""Workflows as Argo's controller writes them for a pipeline of KFP's compiler, and the recorded real ones.

`Argo` follows Argo's schema and rules: an identity is the hash of a node's full name, a member of a DAG has that DAG's
`boundaryID`, a template with a retry strategy gives a Retry node over its attempts, a loop a TaskGroup, an exit handler
a node `<task>.onExit`, and edges lead on to the next step. With `defaults` every template has a strategy, as with KFP's
own manifests; without, only the steps' pods have one. `test_workflow.py` compares the result with real workflows.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "workflows"
CACHED = ("Skipped", "when 'true != true' evaluated false")
Pod = str | tuple[str, str]
"""Phase, or phase and message."""


def recorded(name: str) -> dict[str, Any]:
    """A real workflow."""
    tree: dict[str, Any] = json.loads(gzip.decompress((RECORDED / f"{name}.json.gz").read_bytes()))
    if "pipeline_runtime" in tree:
        tree = json.loads(tree["pipeline_runtime"]["workflow_manifest"])
    return tree


def identity(workflow: str, name: str) -> str:
    """Argo's: FNV-1a of the node's full name."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return workflow if name == workflow else f"{workflow}-{value}"


class Argo:
    """A workflow under construction.

    Args:
        root_driver: its pod, or pods.
        defaults: whether every template has a retry strategy.
        name: the workflow's.
    """

    def __init__(
        self,
        root_driver: Pod | list[Pod] = "Succeeded",
        *,
        defaults: bool = True,
        name: str = "cliprd-distill-x7k2p",
    ) -> None:
        self.name, self.defaults = name, defaults
        self.nodes: dict[str, dict[str, Any]] = {}
        self._graphs: list[dict[str, Any]] = []
        self.clock = 0
        whole = self.composite(name, name, None, "entrypoint", graph=True)
        pods = _pods(root_driver)
        self.driver("root-driver", pods, whole, "system-dag-driver")
        self.root: Graph | None = None
        if _phase(pods[-1]) == "Succeeded":
            self.root = Graph(self, self.composite("root", f"{whole['name']}.root", whole, "root", graph=True))

    def another_root(self) -> Graph:
        """The whole pipeline once more, as Argo repeats a DAG whose node was in error."""
        (retry,) = [node for node in self.nodes.values() if node["displayName"] == "root" and node["type"] == "Retry"]
        return Graph(self, self._attempt(retry, "DAG", len(retry["children"]), graph=True))

    def add(self, display: str, name: str, kind: str, phase: str, around: dict[str, Any] | None, template: str) -> dict:
        """A node."""
        self.clock += 1
        node = {
            "id": identity(self.name, name), "name": name, "displayName": display, "type": kind, "phase": phase,
            "templateName": template, "templateScope": f"local/{self.name}", "startedAt": self._time(self.clock),
            "finishedAt": None if phase in ("Pending", "Running") else self._time(self.clock + 10), "children": [],
        }  # fmt: skip
        if around:
            node["boundaryID"] = around["id"]
        self.nodes[node["id"]] = node
        return node

    def composite(
        self,
        display: str,
        name: str,
        around: dict | None,
        template: str,
        *,
        graph: bool = False,
        phase: str = "Running",
    ) -> dict:
        """A DAG; with a strategy inside its Retry node. Gives the DAG."""
        if not self.defaults:
            node = self.add(display, name, "DAG", phase, around, template)
            self._graphs += [node] if graph else []
            return node
        retry = self.add(display, name, "Retry", phase, around, template)
        self._graphs += [retry] if graph else []
        return self._attempt(retry, "DAG", 0, phase=phase, graph=graph)

    def _attempt(self, retry: dict, kind: str, number: int, *, phase: str = "Running", graph: bool = False) -> dict:
        display, name = f"{retry['displayName']}({number})", f"{retry['name']}({number})"
        node = self.add(display, name, kind, phase, self.nodes.get(retry.get("boundaryID", "")), retry["templateName"])
        node["nodeFlag"] = {"retried": True}
        retry["children"].append(node["id"])
        self._graphs += [node] if graph else []
        return node

    def driver(self, display: str, pods: Sequence[Pod], around: dict, template: str) -> dict:
        """A driver's pods. Gives the last."""
        return self.pods(display, pods, around, template, strategy=self.defaults)

    def pods(
        self, display: str, pods: Sequence[Pod], around: dict, template: str, *, strategy: bool, final: bool = True
    ) -> dict:
        """A pod, or with a strategy its attempts inside a Retry node. Gives the last."""
        name = f"{around['name']}.{display}"
        if not strategy or _phase(pods[-1]) == "Skipped":
            (pod,) = pods
            kind = "Skipped" if _phase(pod) == "Skipped" else "Pod"
            return self._tell(self.add(display, name, kind, _phase(pod), around, template), pod)
        last = _phase(pods[-1])
        phase = last if last == "Succeeded" or (final and last in ("Failed", "Error")) else "Running"
        retry = self.add(display, name, "Retry", phase, around, template)
        if phase == "Running" and last in ("Failed", "Error"):
            retry["message"] = "Backoff for 30 seconds"
        for number, pod in enumerate(pods):
            node = self._tell(self._attempt(retry, "Pod", number, phase=_phase(pod)), pod)
        return node

    def _tell(self, node: dict, pod: Pod) -> dict:
        if isinstance(pod, tuple):
            node["message"] = pod[1]
        return node

    def _time(self, seconds: int) -> str:
        return f"2026-11-26T{10 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"

    def manifest(
        self, phase: str = "Running", *, form: str = "plain", message: str = "", **spec: Any
    ) -> dict[str, Any]:
        """The workflow.

        Args:
            phase: of the whole and its graphs.
            form: of the nodes: plain, compressed or offloaded.
            message: of the whole.
            spec: further fields of its specification.
        """
        for node in self._graphs:
            node["phase"] = "Running" if phase == "Pending" else phase
            node["finishedAt"] = None if phase in ("Running", "Pending") else self._time(self.clock + 10)
        status: dict[str, Any] = {"phase": phase, **({"message": message} if message else {})}
        if form == "plain":
            status["nodes"] = self.nodes
        elif form == "compressed":
            packed = gzip.compress(json.dumps(self.nodes).encode())
            status.update(nodes=None, compressedNodes=base64.b64encode(packed).decode())
        else:
            status.update(nodes=None, offloadNodeStatusVersion="fnv:784644189")
        annotations = {"workflows.argoproj.io/pod-name-format": "v2"}
        metadata = {"name": self.name, "namespace": "kubeflow", "annotations": annotations}
        made = {"metadata": metadata, "spec": {"entrypoint": "entrypoint", **spec}, "status": status}
        return json.loads(json.dumps(made)) | {"details": json.loads(json.dumps(self.nodes))}


class Graph:
    """A DAG of a pipeline: its tasks are added in the order in which they begin."""

    def __init__(self, argo: Argo, node: dict[str, Any]) -> None:
        self.argo, self.node = argo, node
        self._last = node

    def task(
        self, name: str, *pods: Pod, driver: Pod | list[Pod] = "Succeeded", retries: bool = True, final: bool = True
    ) -> None:
        """A step.

        Args:
            name: the task's.
            pods: each attempt's; none: only its driver is there.
            driver: its pod, or pods.
            retries: whether the step has retries of its own.
            final: whether a failed last attempt is the last one.
        """
        argo = self.argo
        drivers = _pods(driver)
        self._follow(argo.driver(f"{name}-driver", drivers, self.node, "system-container-driver"))
        if not pods:
            return
        prefix = "retry-" if retries else ""
        last = _phase(pods[-1])
        phase = {"Skipped": "Succeeded", "Pending": "Running"}.get(last, last)
        if last in ("Failed", "Error") and not final:
            phase = "Running"
        outer = argo.composite(
            name, f"{self.node['name']}.{name}", self.node, f"{prefix}system-container-executor", phase=phase
        )
        self._follow(outer)
        strategy = argo.defaults or retries
        pod = argo.pods("executor", pods, outer, f"{prefix}system-container-impl", strategy=strategy, final=final)
        outer["children"].append(argo.nodes.get(identity(argo.name, f"{outer['name']}.executor"), pod)["id"])
        self._last = pod if pod["type"] == "Pod" else outer

    def left_out(self, name: str) -> None:
        """A condition that is not met, after its driver."""
        self._follow(self.argo.driver(f"{name}-driver", ["Succeeded"], self.node, "system-dag-driver"))
        node = self.argo.add(name, f"{self.node['name']}.{name}", "Skipped", "Skipped", self.node, f"comp-{name}")
        node["message"] = "when 'false != false' evaluated false"
        self._follow(node)

    def omit(self, *names: str) -> None:
        """Steps whose turn never comes."""
        for name in names:
            for display in (f"{name}-driver", name):
                node = self.argo.add(display, f"{self.node['name']}.{display}", "Skipped", "Omitted", self.node, "x")
                node["message"] = "omitted: depends condition not met"
                self._follow(node)

    def graph(self, name: str) -> Graph:
        """A condition that is met, or what an exit handler is for."""
        self._follow(self.argo.driver(f"{name}-driver", ["Succeeded"], self.node, "system-dag-driver"))
        made = self.argo.composite(name, f"{self.node['name']}.{name}", self.node, f"comp-{name}", graph=True)
        self._follow(made)
        return Graph(self.argo, made)

    def on_exit(self, name: str) -> Graph:
        """The exit handler's own graph, a child of the node of its task."""
        argo = self.argo
        full = f"{self.node['name']}.{name}"
        made = argo.composite(f"{name}.onExit", f"{full}.onExit", self.node, "exit-hook-root-record", graph=True)
        handled, hook = argo.nodes[identity(argo.name, full)], argo.nodes[identity(argo.name, f"{full}.onExit")]
        hook["nodeFlag"] = {"hooked": True}
        handled["children"].append(hook["id"])
        return Graph(argo, made)

    def loop(self, name: str, count: int) -> list[Graph]:
        """A graph an iteration."""
        argo, template = self.argo, f"comp-{name}"
        around = argo.composite(
            name, f"{self.node['name']}.{name}", self.node, f"{template}-{name}-iterator", graph=True
        )
        self._follow(around)
        driver = argo.driver("iteration-driver", ["Succeeded"], around, "system-dag-driver")
        full, iteration = f"{around['name']}.iteration-iterations", f"{template}-iteration"
        group = argo.add("iteration-iterations", full, "TaskGroup", "Running", around, iteration)
        argo._graphs.append(group)
        driver["children"].append(group["id"])
        graphs = []
        for number in range(count):
            display = f"iteration-iterations({number}:{number})"
            one = argo.composite(display, f"{full}({number}:{number})", around, iteration, graph=True)
            group["children"].append(identity(argo.name, f"{full}({number}:{number})"))
            argo.driver("iteration-item-driver", ["Succeeded"], one, "system-dag-driver")
            inner = argo.composite("iteration-item", f"{one['name']}.iteration-item", one, template, graph=True)
            graphs.append(Graph(argo, inner))
        return graphs

    def _follow(self, node: dict[str, Any]) -> None:
        """An edge from what was last to a node, or to the Retry node around it."""
        name = node["name"]
        outer = self.argo.nodes.get(
            identity(self.argo.name, name[: name.rfind("(")] if name.endswith(")") else name), node
        )
        self._last["children"].append(outer["id"])
        self._last = node


def _pods(pods: Pod | list[Pod]) -> list[Pod]:
    return pods if isinstance(pods, list) else [pods]


def _phase(pod: Pod) -> str:
    return pod if isinstance(pod, str) else pod[0]


def v2_details(nodes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The task details that the v2 API of KFP 2.17 makes of nodes: no identity, no message."""
    states = {"Error": "FAILED", "Omitted": "RUNTIME_STATE_UNSPECIFIED"}
    return [
        {
            "task_id": str(number),
            "display_name": node["displayName"],
            "state": states.get(node["phase"], node["phase"].upper()),
            "start_time": node["startedAt"],
            "end_time": node.get("finishedAt") or "1970-01-01T00:00:00Z",
            "child_tasks": [{"pod_name": child} for child in node.get("children", [])],
        }
        for number, node in enumerate(nodes.values())
    ]
