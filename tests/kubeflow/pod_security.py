"""Pods as Argo assembles them, and what Kubernetes' standard `restricted` has against a pod.

Merging is by the rules of Kubernetes' strategic merge patch for the lists that occur here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml

Tree = dict[str, Any]
_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
IMAGE = "quay.io/argoproj/argoexec:v4.0.5"
UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
KFP_EXECUTOR = {
    "runAsNonRoot": True, "runAsUser": 65532, **UNPRIVILEGED, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip
"""`executor.securityContext` of KFP 2.17.0's manifests; Argo's own set none
(manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml)."""


def merge(base: Any, patch: Any, name: str = "") -> Any:
    """A strategic merge patch applied."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: merge(base.get(key), value, key) for key, value in patch.items()}}
    if isinstance(base, list) and isinstance(patch, list) and (key := _KEYS.get(name)):
        merged = {one[key]: one for one in base}
        for one in patch:
            merged[one[key]] = merge(merged.get(one[key]), one)
        return [*merged.values()]
    return copy.deepcopy(patch)


def argo_pod(workflow: Tree, template: Tree, *patches: Tree | str, executor: Tree | None = None) -> Tree:
    """The pod of a template, as Argo 4.0.5 makes it (workflow/controller/workflowpod.go, createWorkflowPod).

    Args:
        workflow: the workflow's `spec`.
        patches: values of `podSpecPatch`, parameters filled in.
        executor: `executor.securityContext` of the controller's ConfigMap.
    """
    own: Tree = {"image": IMAGE, "volumeMounts": [{"name": "tmp-dir-argo", "mountPath": "/tmp", "subPath": "0"}]}
    if executor:
        own["securityContext"] = executor
    shared = {"name": "var-run-argo", "mountPath": "/var/run/argo"}
    spec: Tree = {
        "restartPolicy": "Never",
        "serviceAccountName": workflow.get("serviceAccountName", "default"),
        "securityContext": template.get("securityContext") or workflow.get("securityContext") or {},
        "initContainers": [
            {"name": "init", "command": ["argoexec", "init"], **own},
            *template.get("initContainers", []),
        ],
        "containers": [
            {"name": "wait", "command": ["argoexec", "wait"], **own},
            {**template["container"], "name": "main"},
        ],
        "volumes": [
            {"name": "var-run-argo", "emptyDir": {}},
            {"name": "tmp-dir-argo", "emptyDir": {}},
            *template.get("volumes", []),
        ],
    }
    for key in ("nodeSelector", "affinity", "tolerations", "activeDeadlineSeconds"):
        if template.get(key):
            spec[key] = template[key]
    spec = copy.deepcopy(spec)  # the template serves for other pods too
    for patch in patches:
        spec = merge(spec, yaml.safe_load(patch) if isinstance(patch, str) else patch)
    for container in [*spec["initContainers"], *spec["containers"]]:
        container["volumeMounts"] = [*container.get("volumeMounts", []), shared]
    labels = {"workflows.argoproj.io/workflow": "run", **workflow.get("podMetadata", {}).get("labels", {})}
    labels |= template.get("metadata", {}).get("labels", {})
    return pod(spec, labels)


def pod(spec: Tree, labels: Tree | None = None) -> Tree:
    """A pod of a spec."""
    metadata = {"generateName": "test-", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def specs(tree: Any) -> Iterator[Tree]:
    """Every pod's spec in an object."""
    if isinstance(tree, dict):
        if isinstance(tree.get("containers"), list):
            yield tree
        for value in tree.values():
            yield from specs(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from specs(value)


def violations(spec: Tree) -> list[str]:
    """What `restricted` refuses, one entry a field; https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    found = [f"pod: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    for volume in spec.get("volumes", []):
        found += [f"volume {volume['name']}: {kind}" for kind in set(volume) - {"name"} - _VOLUMES]
    whole = spec.get("securityContext") or {}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext") or {}
        given = {**whole, **own}
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in (own.get("capabilities") or {}).get("drop", []),
            "added capabilities": set((own.get("capabilities") or {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": given.get("runAsNonRoot") is True,
            "runAsUser": given.get("runAsUser") != 0,
            "seccompProfile": (given.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, good in checks.items() if not good]
    return found
