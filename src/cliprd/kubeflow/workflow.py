"""The nodes of a run's Argo workflow, and where each stands in the pipeline.

Argo makes a node of every use of a template. Its `boundaryID` is the DAG that it belongs to. A template with a retry
strategy gives a Retry node, whose children of the same name and a number are the attempts: KFP's own manifests set a
strategy for every template, so that pods, DAGs and the whole may each have such a level. A loop gives a TaskGroup and a
node an iteration. `children` are edges, which also lead on to the next step and to an exit handler.

So a node has a place, its name inside the names of the DAGs around it, without attempts; and a turn, the attempts of
all that it is in. `root(1).teacher(0).executor(2)` has the place root, teacher, executor and the turn 1, 0, 2.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cliprd.errors import InputError

COMPOSITE = {"Retry", "DAG", "Steps", "StepGroup", "TaskGroup"}
FAILED = {"Failed", "Error"}
LONGEST_PREFIX = 242  # of a pod's name, before the hash: Argo's limit
Place = tuple[str, ...]


@dataclass(frozen=True)
class WorkflowNode:
    """One of Argo's nodes.

    Attributes:
        place: names from the root DAG to the node, without attempts.
        turn: numbers of the attempts that it is in, from the outside to the node itself.
        kind: Argo's type: Pod, Retry, DAG, TaskGroup, Skipped, ...
        phase: Argo's: Pending, Running, Succeeded, Skipped, Failed, Error or Omitted.
        pod: name of its pod; empty where it has none.
        started: time, in a form that sorts; empty: unknown.
        seconds: how long it took, where it is over and known.
    """

    place: Place
    turn: tuple[int, ...]
    kind: str
    phase: str
    pod: str = ""
    message: str = ""
    exit_code: str = ""
    started: str = ""
    seconds: float | None = None

    @property
    def leaf(self) -> bool:
        """Whether it does something itself."""
        return self.kind not in COMPOSITE


@dataclass(frozen=True)
class Workflow:
    """A run's workflow as far as a reader needs it.

    Attributes:
        message: Argo's, about the whole.
        namespace: where its pods are; empty: not known.
        stopped: whether somebody ended it.
        offloaded: the nodes are in a database of Argo's, and not here.
    """

    nodes: tuple[WorkflowNode, ...]
    message: str = ""
    namespace: str = ""
    stopped: bool = False
    offloaded: bool = False


def read_workflow(manifest: Mapping[str, Any]) -> Workflow:
    """A workflow from its manifest, with plain or compressed nodes.

    Args:
        manifest: as the Kubernetes API has it.

    Raises:
        InputError: the compressed nodes cannot be read.
    """
    status, spec = manifest.get("status") or {}, manifest.get("spec") or {}
    raw = status.get("nodes") or _decompressed(status.get("compressedNodes"))
    return Workflow(
        tuple(_nodes(manifest, raw)),
        " ".join((status.get("message") or "").split()),
        str(manifest["metadata"].get("namespace") or ""),
        # KFP ends a run by setting its deadline to now; Argo's own tools by a strategy.
        spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown")),
        not raw and bool(status.get("offloadNodeStatusVersion")),
    )


def _decompressed(text: str | None) -> dict[str, Any]:
    """Argo's form of nodes that are too large for etcd."""
    if not text:
        return {}
    try:
        nodes: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text)))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"The workflow's status.compressedNodes cannot be read: {error}.") from error
    return nodes


def _nodes(manifest: Mapping[str, Any], raw: Mapping[str, Mapping[str, Any]]) -> list[WorkflowNode]:
    attempts = {
        child: (identity, number)
        for identity, node in raw.items()
        if node.get("type") == "Retry"
        for number, child in enumerate(_attempts(node, raw))
    }
    known: dict[str, tuple[Place, tuple[int, ...]]] = {}

    def stand(identity: str) -> tuple[Place, tuple[int, ...]]:
        if identity not in known:
            if identity in attempts:
                retry, number = attempts[identity]
                place, turn = stand(retry)
                known[identity] = place, (*turn, number)
            elif (boundary := str(raw[identity].get("boundaryID"))) in raw:
                place, turn = stand(boundary)
                known[identity] = (*place, _name(raw[identity])), turn
            else:
                known[identity] = (), ()  # the whole
        return known[identity]

    return [_node(manifest, node, *stand(identity)) for identity, node in raw.items()]


def _attempts(retry: Mapping[str, Any], raw: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Identities of a Retry node's attempts: an exit handler is also among its children."""
    numbers = {f"{retry.get('name')}({number})": number for number in range(len(retry.get("children") or ()))}
    mine = [child for child in retry.get("children") or () if child in raw and raw[child].get("name") in numbers]
    return sorted(mine, key=lambda child: numbers[raw[child]["name"]])


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("displayName") or node.get("name") or "")


def _node(manifest: Mapping[str, Any], node: Mapping[str, Any], place: Place, turn: tuple[int, ...]) -> WorkflowNode:
    return WorkflowNode(
        place,
        turn,
        str(node.get("type") or ""),
        str(node.get("phase") or "Pending"),
        _pod_name(manifest, node) if node.get("type") == "Pod" else "",
        " ".join((node.get("message") or "").split()),
        str((node.get("outputs") or {}).get("exitCode") or ""),
        str(node.get("startedAt") or ""),
        seconds_between(node.get("startedAt"), node.get("finishedAt")),
    )


def _pod_name(manifest: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """Argo's rule: workflow, template and the hash that ends the node's identity; the identity alone before 3.4."""
    metadata = manifest["metadata"]
    annotations, workflow = metadata.get("annotations") or {}, metadata["name"]
    if annotations.get("workflows.argoproj.io/pod-name-format") == "v1" or node.get("name") == workflow:
        return str(node["id"])
    template = node.get("templateName") or (node.get("templateRef") or {}).get("template") or ""
    prefix = f"{workflow}-{template}" if template else workflow
    return f"{prefix[:LONGEST_PREFIX]}-{node['id'].rpartition('-')[2]}"


def seconds_between(start: Any, end: Any) -> float | None:
    """Seconds from one time to another, each a datetime or ISO text; None where it is not over."""
    if not start or not end:
        return None
    begun, over = (
        value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(str(value))
        for value in (start, end)
    )
    seconds = (over - begun).total_seconds()
    return seconds if seconds >= 0 else None  # Go's zero time means "not yet"
