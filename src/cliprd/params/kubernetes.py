"""Section `kubernetes`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from cliprd.params.base import Few, Positive, Section

ObjectName = Annotated[str, Field(pattern=r"^$|^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
"""Of a Kubernetes object, short enough for a label; or empty."""
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTPE]i?)?$")]
"""As Kubernetes writes it: `4`, `500m`, `16Gi`."""


class Toleration(Section):
    """A taint that a step's pod tolerates."""

    key: str
    value: str | None = None
    """Null: any."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class NodeRequirement(Section):
    """A condition on a node's label."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[str, ...] = ()
    """Of `In` and `NotIn` at least one, of `Gt` and `Lt` a whole number, of the others none."""

    @model_validator(mode="after")
    def _fitting(self) -> NodeRequirement:
        if self.operator in ("In", "NotIn"):
            fits, wanted = bool(self.values), "at least one value"
        elif self.operator in ("Gt", "Lt"):
            fits, wanted = len(self.values) == 1 and bool(re.fullmatch(r"-?\d+", self.values[0])), "one whole number"
        else:
            fits, wanted = not self.values, "no values"
        if not fits:
            raise ValueError(f"operator {self.operator} of '{self.key}' takes {wanted}")
        return self


class NodeAffinity(Section):
    """Nodes on which a step's pod may run, or rather than on others."""

    match: Annotated[tuple[NodeRequirement, ...], Field(min_length=1)]
    """All of them hold of a node; of several entries without weight one suffices."""
    weight: Annotated[int, Field(ge=1, le=100)] | None = None
    """Null: required. A number: such nodes are preferred."""


class Secret(Section):
    """A Kubernetes secret whose values a step gets as environment variables."""

    name: str
    keys: Annotated[dict[str, str], Field(min_length=1)]
    """Key in the secret → environment variable, as `AWS_SECRET_ACCESS_KEY` or `MLFLOW_TRACKING_TOKEN`."""


class Volume(Section):
    """A persistent volume claim that every step's pod mounts."""

    claim: str
    path: Annotated[str, Field(pattern="^/.")]
    """Mount path in the container, for data that params.yaml names."""


class Resources(Section):
    """Resources that a step's pod requests; null: the cluster's default."""

    cpu: Quantity | None = None
    """Cores: `4` or `500m`."""
    memory: Quantity | None = None
    """`16Gi`."""
    accelerator: str | None = None
    """Resource name, such as `nvidia.com/gpu`."""
    accelerators: Annotated[int, Field(ge=0, le=16)] = 0
    node_selector: dict[str, str] = {}
    node_affinity: tuple[NodeAffinity, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: Quantity | None = None
    """Size of `/dev/shm`: `8Gi`. Steps with several GPU processes communicate through it and always get one."""
    scratch: Quantity | None = None
    """Size of the volume at `/tmp`, where data from s3:// is buffered: `50Gi`; null: the node's disk."""

    timeout: Positive | None = None
    """Seconds after which the pod is terminated, including the wait for its image, secrets and volumes."""

    @model_validator(mode="after")
    def _both(self) -> Resources:
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("accelerator and accelerators belong together: name the resource and how many")
        return self


STEPS = (
    "plan", "prepare", "teacher", "cache", "merge", "distill", "distill_nodes", "benchmark_teacher", "benchmark",
    "compare", "compare_stored", "report", "gate", "promote", "refuse", "record",
    "prepare_teacher", "distill_benchmark", "benchmark_report",
)  # fmt: skip
FUSED = {
    "prepare_teacher": ("prepare", "teacher"),
    "distill_benchmark": ("distill", "benchmark"),
    "benchmark_report": ("benchmark", "report"),
}
"""Step of `kubernetes.fuse` → the steps that it joins."""


class Kubernetes(Section):
    """How a pipeline's steps run on a cluster; written into the compiled pipeline, ignored by local runs."""

    default: Resources = Resources()
    """For steps not named in `steps`."""
    steps: dict[str, Resources] = {}
    """Step → resources."""
    secrets: tuple[Secret, ...] = ()
    environment: dict[str, str] = {}
    """Environment variables of every step, such as AWS_ENDPOINT_URL; secret values belong in `secrets`."""
    image_pull_secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    store: Annotated[str, Field(pattern=r"^$|^s3://[^/]+")] = ""
    """s3:// prefix for shards and teacher cache, which then bypass Kubeflow's artifacts, and for the state of long
    steps, which resume from it when their pod is lost; empty: Kubeflow's artifacts only."""
    slim_image: str = ""
    """Image of target `slim`, without torch, for the steps that need none: prepare, compare, report, gate, promote,
    refuse, record; empty: the image of all others."""
    cache_parts: Few = 1
    """Pods among which the embedding of the teacher cache is divided, at most one a shard."""
    fuse: bool = False
    """Fewer pods: prepare and teacher in one, benchmark and report in one, in an ablation distill and benchmark, and
    the teacher cache not divided. Same artifacts and fingerprints; for small data, and many trainings."""
    queue: ObjectName = ""
    """Kueue's LocalQueue that admits every step's pod, or the job of several nodes; empty: none."""
    priority_class: ObjectName = ""
    """Kueue's WorkloadPriorityClass in `queue`. Kubeflow Pipelines has no field for a pod's own PriorityClass."""
    ttl_seconds: Annotated[int, Field(ge=60, lt=2**31)] | None = None
    """Seconds from a run's end until its workflow and pods are deleted; null: as the cluster is set. At least 60, in
    which Kubeflow notes how the run ended. Also of a PyTorchJob, not of a TrainJob."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Retries of a step whose pod was lost or failed, which of both being the cluster's setting (docs/kubeflow.md);
    network errors are also retried inside every step."""
    backoff: Annotated[str, Field(pattern=r"^[1-9]\d*s$")] = "30s"
    """Wait before the first retry; doubled each time."""
    nodes: Few = 1
    """Nodes that train one student together, each with the resources of `steps.distill`; more than one run as a job of
    `engine` and exchange data through `store`."""
    engine: Literal["trainjob", "pytorchjob"] = "trainjob"
    """Job type for several nodes: Kubeflow Trainer 2, or its predecessor, Training Operator 1."""
    parallelism: Few = 4
    """Students trained, or cache parts embedded, at a time at most; set when compiled."""

    @model_validator(mode="after")
    def _joined(self) -> Kubernetes:
        if self.fuse and self.cache_parts > 1:
            raise ValueError(
                f"cache_parts = {self.cache_parts} and fuse: a pipeline of fewer pods does not divide the cache"
            )
        if self.fuse:
            for step in FUSED:
                self.resources(step)
        return self

    @model_validator(mode="after")
    def _queued(self) -> Kubernetes:
        if self.priority_class and not self.queue:
            raise ValueError(
                f"priority_class '{self.priority_class}' is Kueue's and needs `queue`; Kubeflow Pipelines cannot set a"
                " pod's own PriorityClass"
            )
        return self

    @property
    def queue_labels(self) -> dict[str, str]:
        """Kueue's labels of a pod or job."""
        labels = {"kueue.x-k8s.io/queue-name": self.queue, "kueue.x-k8s.io/priority-class": self.priority_class}
        return {name: value for name, value in labels.items() if value}

    @field_validator("environment")
    @classmethod
    def _not_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if re.search("SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY", name, re.IGNORECASE):
                raise ValueError(
                    f"{name} looks like a secret, but `environment` is part of the compiled pipeline; use `secrets`"
                )
        return value

    @field_validator("volumes")
    @classmethod
    def _once(cls, value: tuple[Volume, ...]) -> tuple[Volume, ...]:
        claims = [volume.claim for volume in value]
        if repeated := [claim for claim in claims if claims.count(claim) > 1]:
            raise ValueError(f"claim '{repeated[0]}' is listed twice; Kubeflow mounts a claim once")
        return value

    def resources(self, step: str) -> Resources:
        """What a step's pod asks for; one that joins others asks for what the one of them in `steps` does.

        Raises:
            ValueError: several of those are in `steps` and differ.
        """
        parts = [part for part in FUSED.get(step, ()) if part in self.steps]
        if step not in self.steps and any(self.steps[part] != self.steps[parts[0]] for part in parts):
            raise ValueError(f"{' and '.join(parts)} ask for different resources, and share a pod: name {step}")
        name = self.resources_of(step)
        return self.default if name == "default" else self.steps[name.removeprefix("steps.")]

    def resources_of(self, step: str) -> str:
        """Where a step's resources stand in this section: `steps.distill`, or `default`."""
        own = next((name for name in (step, *FUSED.get(step, ())) if name in self.steps), None)
        return f"steps.{own}" if own else "default"

    @field_validator("steps")
    @classmethod
    def _known(cls, value: dict[str, Resources]) -> dict[str, Resources]:
        if unknown := sorted(set(value) - set(STEPS)):
            raise ValueError(f"no step '{unknown[0]}'; the steps are {', '.join(STEPS)}")
        return value
