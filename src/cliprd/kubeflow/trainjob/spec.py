"""What a cluster is told of a training on many nodes: a `TrainJob` with the runtime it refers to, or a `PyTorchJob`.

    TrainJob    trainer.kubeflow.org/v1alpha1 (Kubeflow Trainer 2)
    PyTorchJob  kubeflow.org/v1 (Training Operator 1)

Both start the same command in a pod a node, and name the nodes to each other in PET_* (`cliprd.distill.machines`). The
runtime is one of our own, not the `torch-distributed` that comes with the Trainer: only a runtime can say after what
exit codes a pod is not to be started again, and the fields by which a TrainJob patches one change between releases.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from cliprd import document
from cliprd.errors import CliprdError, ParamsError
from cliprd.files import digest
from cliprd.params import Kubernetes, Params, Resources, Section
from cliprd.storage import Location, is_s3

Form = Literal["trainjob", "pytorchjob"]
FORMS: tuple[Form, ...] = ("trainjob", "pytorchjob")
API = {
    "TrainJob": "trainer.kubeflow.org/v1alpha1",
    "TrainingRuntime": "trainer.kubeflow.org/v1alpha1",
    "PyTorchJob": "kubeflow.org/v1",
}
CONTAINER = {"trainjob": "node", "pytorchjob": "pytorch"}  # the engines look for them by these names
USER = 10001  # as in docker/Dockerfile
PORT = 29500  # through which nodes meet; both engines' own
FINAL_CODES = sorted({1, *(kind.exit_code for kind in CliprdError.__subclasses__() if not kind.retryable)})
"""Exit codes that come again when tried again."""
LABELS = {"app.kubernetes.io/name": "cliprd", "app.kubernetes.io/component": "distill"}


def make(
    params: Params, image: str, *, nodes: int, shards: Location, cache: Location, output: Location, form: Form
) -> list[dict[str, Any]]:
    """The manifests, in the order in which they are to be made; the last is the job.

    Args:
        params: `distill`, `student`, `augmentation`, `tracking` are the training's; `kubernetes.steps.distill` is what
            each node asks for, with `secrets`, `environment`, `volumes`, `image_pull_secrets`, `retries` beside it.
        image: every node's.
        nodes: how many.
        shards, cache, output: of `cliprd distill`, in S3 or on a volume of `kubernetes.volumes`.
        form: the engine's.

    Returns:
        Plain trees. Their name says their content: the same training gets the same name, another one another.

    Raises:
        ParamsError: no nodes; or a folder that the nodes do not all see.
    """
    if nodes < 1:
        raise ParamsError(f"--nodes {nodes}: a training needs one at least.")
    folders = {"shards": shards, "cache": cache, "output": output}
    for name, place in folders.items():
        _seen_by_all(name, place, params.kubernetes)
    command = ["cliprd", "distill", "--params", "/dev/null", *_settings(params)]
    for name, place in folders.items():
        command += [f"--{name}", str(place)]
    pod = _pod(params.kubernetes, image, command, CONTAINER[form])
    build = _trainjob if form == "trainjob" else _pytorchjob
    asked = _asked(params.kubernetes)
    spec = build("", pod, nodes, params.kubernetes.retries * nodes, asked.timeout)
    method = re.sub("[^a-z0-9]+", "-", params.distill.method.lower())
    name = f"cliprd-{method}-{params.distill.seed}-{digest(spec)[:10]}"
    return build(name, pod, nodes, params.kubernetes.retries * nodes, asked.timeout)


def dump(manifests: list[dict[str, Any]]) -> str:
    """As YAML, for `kubectl apply`."""
    plain = json.loads(json.dumps(manifests))  # YAML would name what stands in two places, and refer to it
    return "---\n".join(yaml.safe_dump(tree, sort_keys=False, width=120) for tree in plain)


def _trainjob(name: str, pod: dict[str, Any], nodes: int, retries: int, timeout: int | None) -> list[dict[str, Any]]:
    job = {
        "backoffLimit": retries,
        **({"activeDeadlineSeconds": timeout} if timeout else {}),
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER["trainjob"], "operator": "In", "values": FINAL_CODES},
                },
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"metadata": {"labels": LABELS}, "spec": {"restartPolicy": "Never", **pod}},
    }
    runtime = {
        "mlPolicy": {"numNodes": nodes, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "replicas": 1,
                        "template": {
                            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                            "spec": job,
                        },
                    }
                ]
            }
        },
    }
    return [
        _object("TrainingRuntime", name, runtime),
        _object(
            "TrainJob", name, {"runtimeRef": {"kind": "TrainingRuntime", "name": name}, "trainer": {"numNodes": nodes}}
        ),
    ]


def _pytorchjob(name: str, pod: dict[str, Any], nodes: int, retries: int, timeout: int | None) -> list[dict[str, Any]]:
    # Not `ExitCode`: it takes all codes below 128 for final, and 75 with them.
    template = {"restartPolicy": "OnFailure", "template": {"metadata": {"labels": LABELS}, "spec": pod}}
    replicas = {"Master": {"replicas": 1, **template}}
    if nodes > 1:
        replicas["Worker"] = {"replicas": nodes - 1, **template}
    policy = {
        "cleanPodPolicy": "Running",
        "backoffLimit": retries,
        **({"activeDeadlineSeconds": timeout} if timeout else {}),
    }
    return [_object("PyTorchJob", name, {"runPolicy": policy, "pytorchReplicaSpecs": replicas})]


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API[kind], "kind": kind, "metadata": {"name": name, "labels": dict(LABELS)}, "spec": spec}


def _pod(kubernetes: Kubernetes, image: str, command: list[str], container: str) -> dict[str, Any]:
    """A node's pod: not root, with a read-only root file system, no capabilities and no token of the cluster."""
    asked = _asked(kubernetes)
    limits = {
        name: value
        for name, value in (
            ("cpu", asked.cpu), ("memory", asked.memory), (asked.accelerator or "", str(asked.accelerators or ""))
        )
        if value
    }  # fmt: skip
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": _limit(asked.scratch)},
        {"name": "shm", "emptyDir": {"medium": "Memory", **_limit(asked.shared_memory)}},
    ]
    mounts = [{"name": "scratch", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    for number, volume in enumerate(kubernetes.volumes):
        volumes.append({"name": f"data-{number}", "persistentVolumeClaim": {"claimName": volume.claim}})
        mounts.append({"name": f"data-{number}", "mountPath": volume.path})
    found = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": container,
                "image": image,
                "command": command,
                "env": _environment(kubernetes),
                "ports": [{"name": "pytorchjob-port", "containerPort": PORT}],
                "resources": {"limits": limits, "requests": dict(limits)},
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",  # the log's last line says what was wrong
            }
        ],
        "volumes": volumes,
        "nodeSelector": dict(asked.node_selector),
        "tolerations": [
            {"operator": "Equal" if toleration.value else "Exists", **toleration.model_dump(exclude_none=True)}
            for toleration in asked.tolerations
        ],
        "imagePullSecrets": [{"name": name} for name in kubernetes.image_pull_secrets],
    }  # fmt: skip
    return {name: value for name, value in found.items() if value not in ({}, [])}


def _limit(size: str | None) -> dict[str, Any]:
    return {"sizeLimit": size} if size else {}


def _asked(kubernetes: Kubernetes) -> Resources:
    return kubernetes.steps.get("distill", kubernetes.default)


def _environment(kubernetes: Kubernetes) -> list[dict[str, Any]]:
    plain = [{"name": name, "value": value} for name, value in kubernetes.environment.items()]
    secret = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": one.name, "key": key}}}
        for one in kubernetes.secrets
        for key, variable in one.keys.items()
    ]
    return plain + secret


def _settings(params: Params) -> list[str]:
    """The training's sections as `--set`: all that params.yaml says of it, defaults included."""
    sections: Mapping[str, Section] = {
        "distill": params.distill, "student": params.student, "augmentation": params.augmentation,
        "tracking": params.tracking.in_pods(),
    }  # fmt: skip
    return [part for name, section in sections.items() for part in ("--set", f"{name}={_flow(section)}")]


def _flow(section: Section) -> str:
    """A section as YAML in one line; not as JSON, whose 1e-06 is text in YAML."""
    tree = section.model_dump(mode="json")
    return document.dump(tree, default_flow_style=True, width=math.inf).strip()


def _seen_by_all(name: str, place: Location, kubernetes: Kubernetes) -> None:
    text = str(place)
    if is_s3(text) or any(text.startswith(volume.path.rstrip("/") + "/") for volume in kubernetes.volumes):
        return
    mounted = " or ".join(volume.path for volume in kubernetes.volumes)
    raise ParamsError(
        f"--{name} {text}: many nodes need a folder that all of them see.",
        f"Give s3://bucket/prefix, or one under {mounted}."
        if mounted
        else "Give s3://bucket/prefix, or mount a shared volume: kubernetes.volumes.",
    )
