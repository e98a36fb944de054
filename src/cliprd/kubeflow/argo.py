"""The pipelines for Argo Workflows alone, without Kubeflow: a `Workflow`, or with a schedule a `CronWorkflow`.

Each step is a command of `cliprd` in a pod. Nothing passes between pods but folders in `kubernetes.store`, at addresses
of the pipeline's own: what a workflow has finished the next one reuses, and what it has begun the next one resumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliprd import document, storage
from cliprd.errors import ParamsError
from cliprd.files import digest
from cliprd.kubeflow.image import image_of
from cliprd.kubeflow.pods import pod_spec
from cliprd.params import Kubernetes, Params

API = "argoproj.io/v1alpha1"
ENTRY = "pipeline"
PARAMS = "/params/params.yaml"
LABELS = {"app.kubernetes.io/name": "cliprd"}
REPEATED = "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) in [75, 143]"
"""Attempts that another may mend: the pod was lost, cliprd says "retryable", or the pod was told to end."""
OWN_CONTAINERS = """\
initContainers:
- name: init
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL] } }
containers:
- name: wait
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL] } }
"""
"""Patch of every pod, whose containers of Argo's own a namespace that enforces `restricted` refuses as Argo makes them.
Braces apart: Argo replaces what stands between pairs of them."""
UNUSED = {"cache_parts": 1, "nodes": 1, "fuse": False}
"""Of section `kubernetes`: what these workflows have no form for, and its only value."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: as in `kubernetes.steps`, with "-" for "_".
        arguments: of `cliprd`, without the parameters.
        after: names of the steps that it needs.
        items: it is done once for each, `{{item.…}}` in the arguments being its fields.
    """

    name: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()
    items: tuple[Mapping[str, Any], ...] = ()


def compile_argo(name: str, params: Params, image: str, *, cron: str | None = None) -> str:
    """The YAML of one pipeline.

    Args:
        name: distill, ablation or retrain.
        params: all that the steps read; `kubernetes` shapes their pods.
        image: image of the steps; `kubernetes.slim_image` is that of those without torch.
        cron: five fields; makes a `CronWorkflow`, of which one runs at a time.

    Raises:
        ParamsError: there is no store; a parameter would have no effect; or `cron` is none of Argo's.
    """
    if cron is not None:
        _check_cron(cron)
    kubernetes = params.kubernetes
    if not kubernetes.store:
        raise ParamsError(
            "kubernetes.store is empty: without Kubeflow, steps pass their folders through S3.",
            "Set it to an s3:// prefix.",
        )
    for key, value in UNUSED.items():
        if getattr(kubernetes, key) != value:
            raise ParamsError(f"kubernetes.{key} has no effect in a workflow of Argo alone.", f"Leave it at {value}.")
    tree = params.model_copy(update={"tracking": params.tracking.in_pods()}).model_dump(mode="json")
    steps = _steps(name, params, storage.join(kubernetes.store, f"argo/{name}"))
    spec = {
        "entrypoint": ENTRY,
        "arguments": {"parameters": [{"name": "params", "value": document.dump(tree, sort_keys=False)}]},
        "parallelism": kubernetes.parallelism,
        # Two workflows would write the same folders.
        "synchronization": {"mutexes": [{"name": f"cliprd-{name}-{digest(kubernetes.store)[:8]}"}]},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "podSpecPatch": OWN_CONTAINERS,
        "imagePullSecrets": [{"name": secret} for secret in kubernetes.image_pull_secrets],
        "ttlStrategy": {"secondsAfterCompletion": kubernetes.ttl_seconds} if kubernetes.ttl_seconds else {},
        "templates": [_graph(steps), *(_template(step, kubernetes, image) for step in steps)],
    }
    spec = {key: value for key, value in spec.items() if value not in ({}, [])}
    text: str = document.dump(_object(name, spec, cron), sort_keys=False, width=120)
    return f"# Made by `cliprd pipeline compile`; do not edit.\n{text}"


def _check_cron(expression: str) -> None:
    from cliprd.kubeflow import schedule

    schedule.cron(expression)
    if len(expression.split()) == 6:
        raise ParamsError(f"--cron '{expression}': Argo knows no seconds.", "Give five fields: minute to weekday.")


def _object(name: str, spec: dict[str, Any], cron: str | None) -> dict[str, Any]:
    if cron is None:
        metadata = {"generateName": f"cliprd-{name}-", "labels": LABELS}
        return {"apiVersion": API, "kind": "Workflow", "metadata": metadata, "spec": spec}
    timed = {"schedules": [cron], "concurrencyPolicy": "Forbid", "workflowSpec": spec}
    metadata = {"name": f"cliprd-{name}", "labels": LABELS}
    return {"apiVersion": API, "kind": "CronWorkflow", "metadata": metadata, "spec": timed}


def _steps(name: str, params: Params, root: str) -> list[Step]:
    method, seed = params.distill.method, params.distill.seed
    many = name == "ablation"
    grid = [(m, s) for m in params.ablation.methods for s in params.ablation.seeds] if many else [(method, seed)]
    runs = tuple({"method": m, "seed": s} for m, s in grid)
    run = "{{item.method}}-{{item.seed}}"
    shards, teacher, cache, scores, students = (
        f"{root}/{folder}" for folder in ("shards", "teacher", "cache", "benchmark", "students")
    )
    steps = [
        Step("plan", ("plan",)),
        Step("prepare", ("prepare", "--output", shards), ("plan",)),
        Step("teacher", ("teacher", "--shards", shards, "--output", teacher), ("prepare",)),
        Step("cache", ("cache", "--shards", shards, "--teacher", teacher, "--output", cache), ("teacher",)),
        Step("benchmark-teacher", ("benchmark", "--model", teacher, "--output", f"{scores}/teacher"), ("teacher",)),
        Step(
            "distill",
            ("distill", "--shards", shards, "--cache", cache, "--method", "{{item.method}}", "--seed",
             "{{item.seed}}", "--output", f"{students}/{run}"),
            ("cache",), runs,
        ),
        Step(
            "benchmark",
            ("benchmark", "--model", f"{students}/{run}", "--reference", f"{scores}/teacher", "--output",
             f"{scores}/{run}"),
            ("distill", "benchmark-teacher"), runs,
        ),
    ]  # fmt: skip
    compare = Step(
        "compare",
        ("compare", "--benchmarks", scores, "--students", students, "--output", f"{root}/reports"),
        ("benchmark",),
    )
    if many:
        return [*steps, compare]
    of_one = [f"ablation.methods=['{method}']", f"ablation.seeds=[{seed}]", f"compare.reference='{method}'"]
    own = tuple(part for override in of_one for part in ("--set", override))
    steps.append(dataclasses.replace(compare, name="report", arguments=compare.arguments + own))
    if name == "retrain":
        one = f"{method}-{seed}"
        given = ("--student", f"{students}/{one}", "--benchmark", f"{scores}/{one}", "--output", f"{root}/decision")
        steps.append(Step("promote", ("promote", *given), ("benchmark",)))
    return steps


def _graph(steps: Sequence[Step]) -> dict[str, Any]:
    tasks = []
    for step in steps:
        task: dict[str, Any] = {"name": step.name, "template": step.name}
        if step.after:
            task["dependencies"] = [*step.after]
        if step.items:
            fields = [{"name": field, "value": f"{{{{item.{field}}}}}"} for field in step.items[0]]
            task |= {"withItems": [*map(dict, step.items)], "arguments": {"parameters": fields}}
        tasks.append(task)
    return {"name": ENTRY, "dag": {"tasks": tasks}}


def _template(step: Step, kubernetes: Kubernetes, image: str) -> dict[str, Any]:
    key = step.name.replace("-", "_")
    resources = kubernetes.resources(key)
    arguments = [argument.replace("{{item.", "{{inputs.parameters.") for argument in step.arguments]
    image = image_of(key, image, kubernetes)
    pod = pod_spec(kubernetes, resources, image, ["cliprd", arguments[0], "--params", PARAMS, *arguments[1:]], "main")
    (container,) = pod.pop("containers")
    pod.pop("imagePullSecrets", None)
    pod.pop("automountServiceAccountToken")  # Argo's own container in the pod reports with it
    inputs: dict[str, Any] = {
        "artifacts": [{"name": "params", "path": PARAMS, "raw": {"data": "{{workflow.parameters.params}}"}}]
    }
    if step.items:
        inputs["parameters"] = [{"name": field} for field in step.items[0]]
    template: dict[str, Any] = {"name": step.name, "inputs": inputs, "container": container, **pod}
    if kubernetes.queue_labels:
        template["metadata"] = {"labels": kubernetes.queue_labels}
    if resources.timeout:
        template["activeDeadlineSeconds"] = resources.timeout
    if kubernetes.retries and step.name != "plan":
        template["retryStrategy"] = {
            "limit": kubernetes.retries,
            "retryPolicy": "Always",
            "expression": REPEATED,
            "backoff": {"duration": kubernetes.backoff, "factor": 2},
        }
    return template
