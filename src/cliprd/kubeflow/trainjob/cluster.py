"""The cluster's API, as far as a job needs it: make, look, remove; every failure as one typed line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cliprd.errors import EnvironmentError_, InputError, RetryableError

T = TypeVar("T")
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SECONDS = (10, 60)  # to connect, to answer
PLURAL = {"TrainJob": "trainjobs", "TrainingRuntime": "trainingruntimes", "PyTorchJob": "pytorchjobs"}
PODS = {"TrainJob": "jobset.sigs.k8s.io/jobset-name", "PyTorchJob": "training.kubeflow.org/job-name"}
RIGHTS = "make, get and delete trainjobs and trainingruntimes (or pytorchjobs), and list pods"


class Cluster:
    """One namespace of a cluster.

    Args:
        client: kubernetes' ApiClient.
        namespace: in which jobs are made.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes import client as api

        self.namespace = namespace
        self._objects, self._pods = api.CustomObjectsApi(client), api.CoreV1Api(client)

    @classmethod
    def here(cls) -> Cluster:
        """The cluster and namespace of the pod that this process runs in.

        Raises:
            EnvironmentError_: this is no pod, or it has no token.
        """
        from kubernetes import client as api
        from kubernetes import config

        try:
            config.load_incluster_config()
            return cls(api.ApiClient(), NAMESPACE.read_text(encoding="utf-8").strip())
        except (config.ConfigException, OSError) as error:
            raise EnvironmentError_(
                f"There is no cluster around this process: {error}.", "Jobs on many nodes start from a pod of one."
            ) from error

    def make(self, tree: Mapping[str, Any]) -> bool:
        """Make an object; False: one of this name is there."""
        where = (*self._where(tree["kind"], tree["apiVersion"]), dict(tree))
        return (
            self._asked(lambda: self._objects.create_namespaced_custom_object(*where, **_TIMES), absent=409) is not None
        )

    def look(self, tree: Mapping[str, Any]) -> dict[str, Any] | None:
        """The object as it is now; None: it is not there."""
        where = (*self._where(tree["kind"], tree["apiVersion"]), tree["metadata"]["name"])
        return self._asked(lambda: self._objects.get_namespaced_custom_object(*where, **_TIMES), absent=404)

    def remove(self, tree: Mapping[str, Any]) -> None:
        """Have an object removed, and all that it owns first; it may be gone."""
        where = (*self._where(tree["kind"], tree["apiVersion"]), tree["metadata"]["name"])
        remove = self._objects.delete_namespaced_custom_object
        self._asked(lambda: remove(*where, propagation_policy="Foreground", **_TIMES), absent=404)

    def pods(self, tree: Mapping[str, Any]) -> list[Any]:
        """The job's pods, by name."""
        label = f"{PODS[tree['kind']]}={tree['metadata']['name']}"
        found = self._asked(lambda: self._pods.list_namespaced_pod(self.namespace, label_selector=label, **_TIMES))
        return sorted(found.items if found else [], key=lambda pod: str(pod.metadata.name))

    def _where(self, kind: str, version: str) -> tuple[str, str, str, str]:
        group, _, number = version.partition("/")
        return group, number, self.namespace, PLURAL[kind]

    def _asked(self, call: Callable[[], T], absent: int = 0) -> T | None:
        """`call()`; None where the API answers `absent`."""
        import urllib3
        from kubernetes.client import ApiException

        try:
            return call()
        except ApiException as error:
            if error.status == absent:
                return None
            said = f"({error.status} {error.reason})"
            if error.status in (401, 403):
                raise EnvironmentError_(
                    f"The cluster forbids this in namespace {self.namespace} {said}.",
                    f"The pod's service account needs the right to {RIGHTS}.",
                ) from None
            if error.status == 404:
                raise EnvironmentError_(
                    f"The cluster knows no such jobs {said}.", "Install Kubeflow Trainer, or choose the other form."
                ) from None
            if error.status in (400, 422):
                raise InputError(
                    f"The cluster refuses the job {said}: {str(error.body)[:500]}", "Check kubernetes."
                ) from None
            raise RetryableError(f"The cluster cannot answer now {said}.", "Try again later.") from None
        except urllib3.exceptions.HTTPError as error:
            raise RetryableError(
                f"The cluster cannot be reached: {type(error).__name__}.", "Try again later."
            ) from error


_TIMES = {"_request_timeout": SECONDS}
