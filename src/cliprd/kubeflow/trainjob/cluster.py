"""The cluster's API, as far as a job needs it: create, get, delete; every failure as one typed line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cliprd.errors import InputError, MachineError, RetryableError

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SECONDS = (10, 60)  # to connect, to answer
PLURAL = {"TrainJob": "trainjobs", "TrainingRuntime": "trainingruntimes", "PyTorchJob": "pytorchjobs"}
PODS = {"TrainJob": "jobset.sigs.k8s.io/jobset-name", "PyTorchJob": "training.kubeflow.org/job-name"}
RIGHTS = "create, get and delete trainjobs and trainingruntimes (or pytorchjobs), and list pods"


class Cluster:
    """One namespace of a cluster.

    Args:
        client: kubernetes' ApiClient.
        namespace: in which jobs are created.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes import client as api

        self.namespace = namespace
        self._objects, self._pods = api.CustomObjectsApi(client), api.CoreV1Api(client)

    @classmethod
    def here(cls) -> Cluster:
        """The cluster and namespace of the pod that this process runs in.

        Raises:
            MachineError: this is no pod, or it has no token.
        """
        from kubernetes import client as api
        from kubernetes import config

        try:
            config.load_incluster_config()
            return cls(api.ApiClient(), NAMESPACE.read_text(encoding="utf-8").strip())
        except (config.ConfigException, OSError) as error:
            raise MachineError(
                f"This process runs in no cluster: {error}.", "Jobs on many nodes start from a pod of one."
            ) from error

    def create(self, tree: Mapping[str, Any]) -> bool:
        """Create an object; False: one of this name exists."""
        call = self._objects.create_namespaced_custom_object
        return self._request(call, *self._path(tree), dict(tree), absent=409) is not None

    def get(self, tree: Mapping[str, Any]) -> dict[str, Any] | None:
        """The object as it is now; None: it does not exist."""
        call = self._objects.get_namespaced_custom_object
        current: dict[str, Any] | None = self._request(call, *self._path(tree), tree["metadata"]["name"], absent=404)
        return current

    def delete(self, tree: Mapping[str, Any]) -> None:
        """Have an object removed, after all that it owns; it may be gone."""
        call, name = self._objects.delete_namespaced_custom_object, tree["metadata"]["name"]
        self._request(call, *self._path(tree), name, absent=404, propagation_policy="Foreground")

    def pods(self, tree: Mapping[str, Any]) -> list[Any]:
        """The job's pods, by name."""
        label = f"{PODS[tree['kind']]}={tree['metadata']['name']}"
        pods = self._request(self._pods.list_namespaced_pod, self.namespace, label_selector=label).items
        return sorted(pods, key=lambda pod: str(pod.metadata.name))

    def _path(self, tree: Mapping[str, Any]) -> tuple[str, str, str, str]:
        group, _, version = tree["apiVersion"].partition("/")
        return group, version, self.namespace, PLURAL[tree["kind"]]

    def _request(self, call: Callable[..., Any], *arguments: Any, absent: int = 0, **options: Any) -> Any:
        """The API's answer; None where its status is `absent`."""
        import urllib3
        from kubernetes.client import ApiException

        try:
            return call(*arguments, _request_timeout=SECONDS, **options)
        except ApiException as error:
            if error.status == absent:
                return None
            status = f"({error.status} {error.reason})"
            refusal = _message(error.body)
            if "must be created before" in refusal or "exceeded quota" in refusal:  # the first by Trainer's cache
                raise RetryableError(f"The cluster refuses the job for now {status}: {refusal}", "Try again.") from None
            if "denied the request" in refusal or error.status in (400, 422):
                raise InputError(f"The cluster refuses the job {status}: {refusal}", "Check kubernetes.") from None
            if error.status in (401, 403):
                raise MachineError(
                    f"The cluster forbids this in namespace {self.namespace} {status}.",
                    f"The pod's service account needs the right to {RIGHTS}.",
                ) from None
            if error.status == 404:
                raise MachineError(
                    f"The cluster knows no such jobs {status}.", "Install Kubeflow Trainer, or choose the other form."
                ) from None
            raise RetryableError(f"The cluster cannot answer now {status}.", "Try again later.") from None
        except urllib3.exceptions.HTTPError as error:
            raise RetryableError(
                f"The cluster cannot be reached: {type(error).__name__}.", "Try again later."
            ) from error


def _message(body: Any) -> str:
    """What the API says in an answer that is an error; as far as a line takes it."""
    try:
        said = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError):
        said = body or ""
    return " ".join(str(said).split())[:500]
