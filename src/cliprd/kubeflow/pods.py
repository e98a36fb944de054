"""A pod as Kubernetes takes it, of section `kubernetes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliprd.params import Kubernetes, Resources

USER = 10001  # as in docker/Dockerfile


def pod_spec(
    kubernetes: Kubernetes,
    resources: Resources,
    image: str,
    command: Sequence[str],
    container: str,
    *,
    ports: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A pod: not root, with a read-only root file system, no capabilities and no token of the cluster.

    Args:
        kubernetes: secrets, environment, volumes and pull secrets.
        resources: what the pod asks for, and where it may run.
        image, command: of its one container.
        container: that container's name.
        ports: that it opens.
    """
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    amounts[resources.accelerator or ""] = str(resources.accelerators or "")
    limits = {name: amount for name, amount in amounts.items() if amount}
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": _limit(resources.scratch)},
        {"name": "shm", "emptyDir": {"medium": "Memory", **_limit(resources.shared_memory)}},
    ]
    mounts = [{"name": "scratch", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    for number, volume in enumerate(kubernetes.volumes):
        volumes.append({"name": f"data-{number}", "persistentVolumeClaim": {"claimName": volume.claim}})
        mounts.append({"name": f"data-{number}", "mountPath": volume.path})
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": container,
                "image": image,
                "command": [*command],
                "env": _environment(kubernetes),
                **({"ports": [*ports]} if ports else {}),
                "resources": {"limits": limits, "requests": dict(limits)},
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",  # the log's last line is the error
            }
        ],
        "volumes": volumes,
        "nodeSelector": dict(resources.node_selector),
        "affinity": _affinity(resources),
        "tolerations": [
            {"operator": "Equal" if toleration.value else "Exists", **toleration.model_dump(exclude_none=True)}
            for toleration in resources.tolerations
        ],
        "imagePullSecrets": [{"name": name} for name in kubernetes.image_pull_secrets],
    }  # fmt: skip
    return {key: value for key, value in spec.items() if value not in ({}, [])}


def _affinity(resources: Resources) -> dict[str, Any]:
    """As Kubeflow Pipelines makes it of the same parameters: one of the required terms suffices."""
    required, preferred = [], []
    for affinity in resources.node_affinity:
        term = {"matchExpressions": [one.model_dump(mode="json") for one in affinity.match]}
        if affinity.weight is None:
            required.append(term)
        else:
            preferred.append({"weight": affinity.weight, "preference": term})
    nodes = {
        **({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required}} if required else {}),
        **({"preferredDuringSchedulingIgnoredDuringExecution": preferred} if preferred else {}),
    }
    return {"nodeAffinity": nodes} if nodes else {}


def _limit(size: str | None) -> dict[str, Any]:
    return {"sizeLimit": size} if size else {}


def _environment(kubernetes: Kubernetes) -> list[dict[str, Any]]:
    plain = [{"name": name, "value": value} for name, value in kubernetes.environment.items()]
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in kubernetes.secrets
        for key, variable in secret.keys.items()
    ]
    return plain + secrets
