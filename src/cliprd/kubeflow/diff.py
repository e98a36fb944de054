"""What changed between two compiled pipelines, by image, inputs and steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cliprd.kubeflow.image import CONTENT_TAG
from cliprd.kubeflow.submit import dags
from cliprd.kubeflow.versions import Documents

MOST_SHOWN = 60  # characters of a value
RENAMED = ("retryPolicy", "cachingOptions", "dependentTasks", "inputs")  # of a task; `_steps` names them otherwise


@dataclass
class _Step:
    """What a pipeline says of one step."""

    image: str = ""
    code: Any = None
    facts: dict[str, Any] = field(default_factory=dict)


def changes(old: Documents, new: Documents) -> list[str]:
    """The changes, a line each; empty where nothing changed.

    Args:
        old: pipeline spec and platform spec of the uploaded version.
        new: of what would be compiled now.
    """
    images = [sorted(_images(documents)) for documents in (old, new)]
    one_image = all(len(names) == 1 for names in images)
    lines = [f"image: {images[0][0]} -> {images[1][0]}"] if one_image and images[0] != images[1] else []
    lines += _inputs(*(spec["root"].get("inputDefinitions", {}).get("parameters", {}) for spec, _ in (old, new)))
    before, after = _steps(old), _steps(new)
    lines += [f"step {name}: removed" for name in before if name not in after]
    lines += [f"step {name}: added" for name in after if name not in before]
    for name, step in after.items():
        if (was := before.get(name)) is not None:
            if was.image != step.image and not one_image:
                lines.append(f"step {name}: image: {was.image} -> {step.image}")
            if was.code != step.code:
                lines.append(f"step {name}: code changed")
            lines += [f"step {name}: {line}" for line in _differences(was.facts, step.facts)]
    return lines + [f"pipeline: {line}" for line in _differences(_frame(old), _frame(new))]


def image_to_compare(uploaded: Documents, local: str) -> str:
    """The image to compile with where none is named: the uploaded version's, with today's content in its tag.

    A digest does not show what went in, so such an image stays as it is.

    Args:
        uploaded: the version's documents.
        local: content-made tag of this checkout, `cliprd:cpu-...`.
    """
    names = _images(uploaded)
    if len(names) != 1:
        return local
    (image,) = names
    match = CONTENT_TAG.search(image)
    return f"{image[: match.start()]}:{match[1]}-{local.rpartition('-')[2]}" if match else image


def _images(documents: Documents) -> set[str]:
    return {step.image for step in _steps(documents).values() if step.image}


def _inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"input {name}: removed" for name in old if name not in new)
    for name, definition in new.items():
        default = definition.get("defaultValue")
        if name not in old:
            yield f"input {name}: added, default {_shown(default)}"
            continue
        yield from (f"input {line}" for line in _differences({name: old[name].get("defaultValue")}, {name: default}))
        others = ({k: v for k, v in tree.items() if k != "defaultValue"} for tree in (old[name], definition))
        yield from (f"input {name}: {line}" for line in _differences(*others))


def _steps(documents: Documents) -> dict[str, _Step]:
    """Name → step or loop, in its graph."""
    spec, platform = documents
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    on_kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    steps = {}
    for graph, dag in dags(spec).items():
        inside = "" if graph == "root" else f" (in {graph.removeprefix('comp-')})"
        for name, task in dag["tasks"].items():
            component = spec["components"].get(task["componentRef"]["name"], {})
            label = component.get("executorLabel")
            container = executors.get(label, {}).get("container", {})
            facts = {
                "resources": container.get("resources"),
                "environment": container.get("env"),
                **on_kubernetes.get(label, {}),
                "retries": task.get("retryPolicy"),
                "cache": task.get("cachingOptions"),
                "after": sorted(task.get("dependentTasks", [])),
                "takes": task.get("inputs"),
                "interface": {key: component.get(key) for key in ("inputDefinitions", "outputDefinitions")},
                "loop": {key: value for key, value in task.items() if "terator" in key},
                "task": {key: value for key, value in task.items() if key not in RENAMED and "terator" not in key},
                "gathers": component.get("dag", {}).get("outputs"),
            }
            code = (container.get("command"), container.get("args"))
            steps[f"{name}{inside}"] = _Step(container.get("image", ""), code, facts)
    return steps


def _frame(documents: Documents) -> dict[str, Any]:
    """What is neither step nor input."""
    spec, platform = documents
    on_kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    root = spec["root"]
    others = {key: value for key, value in spec.items() if key not in ("components", "deploymentSpec", "root")}
    return {
        **others,
        "root": {key: value for key, value in root.items() if key not in ("dag", "inputDefinitions")},
        "gathers": root["dag"].get("outputs"),
        "kubernetes": {key: value for key, value in on_kubernetes.items() if key != "deploymentSpec"},
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """A line for each leaf that differs; an empty value is absent."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for path in sorted({*before, *after}):
        if path not in before:
            yield f"{path}: added, {_shown(after[path])}"
        elif path not in after:
            yield f"{path}: removed, was {_shown(before[path])}"
        elif before[path] != after[path]:
            yield f"{path}: {_shown(before[path])} -> {_shown(after[path])}"


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        elif value not in ([], None):
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # KFP keeps every number as a double
    text = "none" if value is None else repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
