"""Kubernetes objects of a training on many nodes: a `TrainJob` with the runtime it refers to, or a `PyTorchJob`.

    TrainJob    trainer.kubeflow.org/v1alpha1 (Kubeflow Trainer 2)
    PyTorchJob  kubeflow.org/v1 (Training Operator 1)

Both start the same command in a pod a node, and name the nodes to each other in PET_* (`cliprd.distill.machines`). The
runtime is our own, not the Trainer's `torch-distributed`: only a runtime can list the exit codes after which a pod is
not restarted, and the fields by which a TrainJob patches one change between releases.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import yaml

from cliprd import document
from cliprd.errors import CliprdError, ParamsError
from cliprd.files import digest
from cliprd.kubeflow.pods import pod_spec
from cliprd.params import Kubernetes, Params, Section
from cliprd.storage import Location, is_s3

Form = Literal["trainjob", "pytorchjob"]
FORMS: tuple[Form, ...] = ("trainjob", "pytorchjob")
API = {
    "TrainJob": "trainer.kubeflow.org/v1alpha1",
    "TrainingRuntime": "trainer.kubeflow.org/v1alpha1",
    "PyTorchJob": "kubeflow.org/v1",
}
CONTAINER = {"trainjob": "node", "pytorchjob": "pytorch"}  # the engines look for these names
PORT = 29500  # of the rendezvous; both engines' default
FINAL_CODES = sorted({1, *(kind.exit_code for kind in CliprdError.__subclasses__() if not kind.retryable)})
"""Exit codes of non-retryable errors."""
LABELS = {"app.kubernetes.io/name": "cliprd", "app.kubernetes.io/component": "distill"}


def job_objects(
    params: Params,
    image: str,
    *,
    nodes: int,
    shards: Location,
    cache: Location,
    output: Location,
    form: Form,
    unnamed: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """The objects, in the order in which they are to be created; the last is the job.

    Args:
        params: `distill`, `student`, `augmentation`, `tracking` are the training's; `kubernetes.steps.distill` is what
            each node asks for; with `secrets`, `environment`, `volumes`, `image_pull_secrets`, `retries`, `queue`,
            `priority_class` and, for a PyTorchJob, `ttl_seconds` beside it.
        image: image of every node.
        nodes: how many.
        shards, cache, output: of `cliprd distill`, in S3 or on a volume of `kubernetes.volumes`.
        form: the engine's.
        unnamed: environment variables beside `kubernetes.environment` that the objects' name does not depend on.

    Returns:
        Plain trees. Their name holds a digest of their content: only the same training gets the same name.

    Raises:
        ParamsError: no nodes; or a folder that not all nodes see.
    """
    if nodes < 1:
        raise ParamsError(f"--nodes {nodes}: a training needs one at least.")
    command = ["cliprd", "distill", "--params", "/dev/null", *_settings(params)]
    for name, folder in {"shards": shards, "cache": cache, "output": output}.items():
        _check_shared(name, str(folder), params.kubernetes)
        command += [f"--{name}", str(folder)]
    resources, port = params.kubernetes.resources("distill"), {"name": "pytorchjob-port", "containerPort": PORT}
    pod = pod_spec(params.kubernetes, resources, image, command, CONTAINER[form], ports=[port])
    build = _trainjob if form == "trainjob" else _pytorchjob
    job = _Job(
        nodes,
        params.kubernetes.retries * nodes,
        resources.timeout,
        params.kubernetes.ttl_seconds,
        {**LABELS, **params.kubernetes.queue_labels},
    )
    method = re.sub("[^a-z0-9]+", "-", params.distill.method.lower())
    name = f"cliprd-{method}-{params.distill.seed}-{digest(build('', pod, job))[:10]}"
    environment = pod["containers"][0]["env"]
    given = {variable["name"] for variable in environment}
    environment += [{"name": key, "value": value} for key, value in unnamed.items() if key not in given]
    return build(name, pod, job)


def dump(objects: list[dict[str, Any]]) -> str:
    """As YAML, for `kubectl apply`."""
    plain = json.loads(json.dumps(objects))  # without anchors and aliases for shared values
    return "---\n".join(yaml.safe_dump(tree, sort_keys=False, width=120) for tree in plain)


@dataclass(frozen=True)
class _Job:
    """What a job has beside its pods' spec. `labels` are its own: by them Kueue queues the job, and not its pods."""

    nodes: int
    retries: int
    timeout: int | None
    ttl: int | None
    labels: Mapping[str, str]


def _trainjob(name: str, pod: dict[str, Any], asked: _Job) -> list[dict[str, Any]]:
    exit_codes = {"containerName": CONTAINER["trainjob"], "operator": "In", "values": FINAL_CODES}
    job = {
        "backoffLimit": asked.retries,
        **({"activeDeadlineSeconds": asked.timeout} if asked.timeout else {}),
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": exit_codes},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"metadata": {"labels": LABELS}, "spec": {"restartPolicy": "Never", **pod}},
    }
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    replicated = {"name": "node", "replicas": 1, "template": {"metadata": {"labels": labels}, "spec": job}}
    runtime = {
        "mlPolicy": {"numNodes": asked.nodes, "torch": {}},
        "template": {"spec": {"replicatedJobs": [replicated]}},
    }
    reference = {"runtimeRef": {"kind": "TrainingRuntime", "name": name}, "trainer": {"numNodes": asked.nodes}}
    return [_object("TrainingRuntime", name, runtime, LABELS), _object("TrainJob", name, reference, asked.labels)]


def _pytorchjob(name: str, pod: dict[str, Any], asked: _Job) -> list[dict[str, Any]]:
    # Not `ExitCode`: it treats all codes below 128 as final, and 75 with them.
    template = {"restartPolicy": "OnFailure", "template": {"metadata": {"labels": LABELS}, "spec": pod}}
    replicas = {"Master": {"replicas": 1, **template}}
    if asked.nodes > 1:
        replicas["Worker"] = {"replicas": asked.nodes - 1, **template}
    policy = {
        "cleanPodPolicy": "Running",
        "backoffLimit": asked.retries,
        **({"activeDeadlineSeconds": asked.timeout} if asked.timeout else {}),
        **({"ttlSecondsAfterFinished": asked.ttl} if asked.ttl else {}),
    }
    return [_object("PyTorchJob", name, {"runPolicy": policy, "pytorchReplicaSpecs": replicas}, asked.labels)]


def _object(kind: str, name: str, spec: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": API[kind], "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, "spec": spec}


def _settings(params: Params) -> list[str]:
    """The training's sections as `--set`, defaults included."""
    sections: Mapping[str, Section] = {
        "distill": params.distill, "student": params.student, "augmentation": params.augmentation,
        "tracking": params.tracking.in_pods(),
    }  # fmt: skip
    return [part for name, section in sections.items() for part in ("--set", f"{name}={_one_line(section)}")]


def _one_line(section: Section) -> str:
    """A section as YAML in one line; not as JSON, whose 1e-06 is text in YAML."""
    return document.dump(section.model_dump(mode="json"), default_flow_style=True, width=math.inf).strip()


def _check_shared(name: str, folder: str, kubernetes: Kubernetes) -> None:
    volumes = [volume.path for volume in kubernetes.volumes]
    if is_s3(folder) or any(folder.startswith(path.rstrip("/") + "/") for path in volumes):
        return
    mounted = f"one under {' or '.join(volumes)}." if volumes else "mount a shared volume: kubernetes.volumes."
    raise ParamsError(
        f"--{name} {folder}: many nodes need a folder that all of them see.", f"Give s3://bucket/prefix, or {mounted}"
    )
