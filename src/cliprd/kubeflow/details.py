"""The steps of a run as KFP's v2 API has them, for where its workflow is not to be had.

The v2 API has name and state of every node, but (as of 2.17) not its identity, so that they form no tree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.run_steps import RunStep
from cliprd.kubeflow.workflow import seconds_between


def steps_of_details(details: Iterable[Any], outline: Outline) -> list[RunStep]:
    """The steps as the v2 API has them: without attempts, messages and iterations, and cached is succeeded.

    Args:
        details: its task details.
        outline: the pipeline.
    """
    steps = []
    began: dict[str, list[Any]] = defaultdict(list)
    for task in sorted(details, key=lambda task: str(task.start_time or task.create_time or "")):
        if task.state != "RUNTIME_STATE_UNSPECIFIED":  # omitted
            began[task.display_name or ""].append(task)
    for name in sorted(outline.tasks):
        bodies, drivers = began[name], began[f"{name}-driver"]
        for number, task in enumerate(bodies, start=1):
            steps.append(_of_detail(f"{name} {number}" if len(bodies) > 1 else name, name, task, driver=False))
        for number, task in enumerate(drivers[len(bodies) :], start=len(bodies) + 1):
            steps.append(_of_detail(f"{name} {number}" if len(drivers) > 1 else name, name, task, driver=True))
    others = [name for name in began if name.endswith("-driver") and name.removesuffix("-driver") not in outline.tasks]
    steps += [
        _of_detail(name, "", task, driver=True) for name in others for task in began[name] if task.state == "FAILED"
    ]
    return sorted(steps, key=lambda step: step.started)


def _of_detail(label: str, task: str, detail: Any, *, driver: bool) -> RunStep:
    state = str(detail.state or "PENDING").lower()
    if driver and state not in ("failed", "canceled"):
        state = "starting"
    message = " ".join(((detail.error.message if detail.error else "") or "").split())
    seconds = seconds_between(detail.start_time, detail.end_time) or None  # 0 where the cache had it
    return RunStep(
        label,
        task,
        state,
        message=message,
        seconds=seconds if state in ("succeeded", "failed") else None,
        driver=driver,
        started=str(detail.start_time or detail.create_time or ""),
    )
