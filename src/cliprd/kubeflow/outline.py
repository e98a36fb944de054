"""What a compiled pipeline says about its tasks: their names, what a loop runs over, the resources of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cliprd.kubeflow.submit import Submission, dags
from cliprd.kubeflow.versions import documents
from cliprd.params import Kubernetes


class Outline:
    """The tasks of a submission.

    Attributes:
        tasks: names of those that run in a container: `distill`.
        inside: task that is a DAG (a loop, a condition, an exit handler) → names of such tasks inside it.
        image: image that every step runs in.
    """

    def __init__(self, submission: Submission) -> None:
        spec, _ = documents(submission.text)
        self._kubernetes: Kubernetes = submission.kubernetes
        self._components: dict[str, str] = {}
        self.image = submission.image
        self.inside: dict[str, list[str]] = {}
        self._items: dict[str, list[Any]] = {}
        graphs = dags(spec)
        for graph, dag in graphs.items():
            for name, task in dag["tasks"].items():
                component = task["componentRef"]["name"]
                if component in graphs:
                    self.inside[name] = list(_leaves(graphs, component))
                else:
                    self._components[name] = component
                if "parameterIterator" in task:
                    self._items[name] = _items(spec, graphs, graph, task, submission.arguments)
        self.tasks = frozenset(self._components)

    def iteration(self, loop: str, number: int) -> str:
        """Name of an iteration: of the student that is trained in it, or of its item, or its number from 1.

        Args:
            loop: the loop's task.
            number: from 0.
        """
        names = [_item_name(item) for item in self._items.get(loop, [])]
        distinct = len(set(names)) == len(names) and all(names)
        return names[number] if distinct and number < len(names) else str(number + 1)

    def resource(self, task: str, name: str) -> tuple[str, str]:
        """Where params.yaml sets a resource of a task, and its value there; empty where there is none.

        Args:
            name: of a field of `cliprd.params.Resources`.
        """
        step = re.sub(r"-\d+$", "", self._components.get(task, task)).removeprefix("comp-").replace("-", "_")
        value = getattr(self._kubernetes.resources(step), name)
        return f"kubernetes.{self._kubernetes.resources_of(step)}.{name}", "" if value is None else str(value)


def _leaves(graphs: Mapping[str, Mapping[str, Any]], graph: str) -> Iterator[str]:
    for name, task in graphs[graph]["tasks"].items():
        component = task["componentRef"]["name"]
        if component in graphs:
            yield from _leaves(graphs, component)
        else:
            yield name


def _items(
    spec: Mapping[str, Any],
    graphs: Mapping[str, Mapping[str, Any]],
    graph: str,
    loop: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> list[Any]:
    """What a loop runs over, as far as it is known before the run; empty where a step decides it."""
    items = loop["parameterIterator"]["items"]
    if "raw" in items:
        return list(json.loads(items["raw"]))
    task, name = loop, items["inputParameter"]
    while True:
        name = task.get("inputs", {}).get("parameters", {}).get(name, {}).get("componentInputParameter")
        if name is None:
            return []
        if graph == "root":
            default = spec["root"].get("inputDefinitions", {}).get("parameters", {}).get(name, {}).get("defaultValue")
            value = arguments.get(name, default)
            return value if isinstance(value, list) else []
        graph, task = next(
            (outer, task)
            for outer, dag in graphs.items()
            for task in dag["tasks"].values()
            if task["componentRef"]["name"] == graph
        )


def _item_name(item: Any) -> str:
    if isinstance(item, dict):
        return f"{item['method']}-{int(item['seed'])}" if {"method", "seed"} <= set(item) else ""
    return str(item)[:40] if isinstance(item, str | int | float) else ""
