"""What changed between two compiled pipelines, told by image, inputs and steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cliprd.kubeflow.submit import dags

ABSENT = object()
LEAST = 60  # characters of a value that are always shown
_CONTENT_TAG = re.compile(r":(cpu|cuda)-[0-9a-f]{12}$")
TOLD = ("retryPolicy", "cachingOptions", "dependentTasks", "inputs")  # of a task, under a name of their own
Parts = tuple[Mapping[str, Any], Mapping[str, Any]]


@dataclass
class _Step:
    """A step's own part of a pipeline."""

    image: str
    code: Any
    facts: dict[str, Any] = field(default_factory=dict)


def changes(old: Parts, new: Parts) -> list[str]:
    """What to say, a line each; empty where nothing changed.

    Args:
        old: pipeline spec and platform spec of the uploaded version.
        new: of what would be compiled now.
    """
    lines = [*_images(old, new), *_inputs(old[0], new[0])]
    before, after = _steps(old), _steps(new)
    lines += [f"step {name}: removed" for name in before if name not in after]
    lines += [f"step {name}: added" for name in after if name not in before]
    for name in after:
        if name in before:
            lines += _step(name, before[name], after[name], same_image=len(_names(new)) == 1 and len(_names(old)) == 1)
    lines += [f"pipeline: {line}" for line in _flat(_rest(old[0]), _rest(new[0]))]
    return lines


def image_to_compare(uploaded: Parts, here: str) -> str:
    """The image to compile with where none is named: the uploaded version's, with today's content in its tag.

    A digest tells nothing about what went in, so such an image stays as it is.

    Args:
        uploaded: the version's parts.
        here: content-made tag of this checkout, `cliprd:cpu-...`.
    """
    found = sorted(_names(uploaded))
    image = found[0] if len(found) == 1 else ""
    match = _CONTENT_TAG.search(image)
    if not image or not match:
        return image or here
    return image[: match.start()] + f":{match[1]}-{here.rpartition('-')[2]}"


def _names(parts: Parts) -> set[str]:
    return {step.image for step in _steps(parts).values()}


def _images(old: Parts, new: Parts) -> Iterator[str]:
    before, after = sorted(_names(old)), sorted(_names(new))
    if len(before) == len(after) == 1 and before != after:
        yield f"image: {before[0]} -> {after[0]}"


def _inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = (spec["root"].get("inputDefinitions", {}).get("parameters", {}) for spec in (old, new))
    for name in before:
        if name not in after:
            yield f"input {name}: removed"
    for name, now in after.items():
        if name not in before:
            yield f"input {name}: added, default {_shown(now.get('defaultValue', ABSENT))}"
            continue
        was = before[name]
        for key, one, other in _leaves(was.get("defaultValue", ABSENT), now.get("defaultValue", ABSENT)):
            yield f"input {'.'.join((name, *key))}: {_pair(one, other)}"
        for key, one, other in _leaves(_without(was, "defaultValue"), _without(now, "defaultValue")):
            yield f"input {name}: {'.'.join(key)}: {_pair(one, other)}"


def _step(name: str, old: _Step, new: _Step, *, same_image: bool) -> Iterator[str]:
    if old.image != new.image and not same_image:
        yield f"step {name}: image: {old.image} -> {new.image}"
    if old.code != new.code:
        yield f"step {name}: code changed"
    for line in _flat(old.facts, new.facts):
        yield f"step {name}: {line}"


def _steps(parts: Parts) -> dict[str, _Step]:
    spec, platform = parts
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    places = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    made = {}
    for graph, dag in dags(spec).items():
        inside = "" if graph == "root" else f" (in {graph.removeprefix('comp-')})"
        for name, task in dag["tasks"].items():
            component = spec["components"].get(task["componentRef"]["name"], {})
            label = component.get("executorLabel")
            container = executors.get(label, {}).get("container", {})
            facts = {
                "resources": container.get("resources", {}),
                "environment": container.get("env", []),
                **{key: places.get(label, {}).get(key, ABSENT) for key in places.get(label, {})},
                "retries": task.get("retryPolicy", {}),
                "cache": task.get("cachingOptions", {}),
                "after": sorted(task.get("dependentTasks", [])),
                "takes": task.get("inputs", {}),
                "interface": {key: component.get(key, {}) for key in ("inputDefinitions", "outputDefinitions")},
                "loop": {key: value for key, value in task.items() if "terator" in key},
                "task": {key: value for key, value in task.items() if key not in TOLD and "terator" not in key},
                "gathers": component.get("dag", {}).get("outputs", {}),
            }
            code = (container.get("command"), container.get("args"))
            made[f"{name}{inside}"] = (
                _Step(container.get("image", ""), code, facts) if label else _Step("", None, facts)
            )
    loops = [name for name, step in made.items() if not step.image]
    for name in loops:  # a loop is no step that runs, but what it does may change
        made[name].image = next((step.image for step in made.values() if step.image), "")
    return made


def _rest(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What is neither step nor input."""
    root = spec["root"]
    rest = {key: value for key, value in spec.items() if key not in ("components", "deploymentSpec", "root")}
    frame = {key: value for key, value in root.items() if key not in ("dag", "inputDefinitions")}
    return {**rest, "root": frame, "gathers": root["dag"].get("outputs", {})}


def _flat(old: Any, new: Any) -> Iterator[str]:
    for key, one, other in _leaves(old, new):
        yield f"{'.'.join(key)}: {_pair(one, other)}"


def _leaves(old: Any, new: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Path, old and new value of everything that differs; what is empty is absent."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _leaves(old.get(key, ABSENT), new.get(key, ABSENT), (*at, str(key)))
    elif old != new and not (_nothing(old) and _nothing(new)):
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            pairs = (old if isinstance(old, Mapping) else {}, new if isinstance(new, Mapping) else {})
            if all(_nothing(value) or isinstance(value, Mapping) for value in (old, new)):
                yield from _leaves(*pairs, at)
                return
        yield at, old, new


def _nothing(value: Any) -> bool:
    return value is ABSENT or value in ({}, [], None)


def _without(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}


def _pair(old: Any, new: Any) -> str:
    if _nothing(old):
        return f"added, {_shown(new)}"
    if _nothing(new):
        return f"removed, was {_shown(old)}"
    return f"{_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # KFP keeps every number as a double
    text = repr(value)
    return text if len(text) <= LEAST else f"{text[: LEAST - 3]}..."
