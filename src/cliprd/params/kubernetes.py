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

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTPE]i?)?$")]
"""As Kubernetes writes it: `4`, `500m`, `16Gi`."""


class Toleration(Section):
    """A taint that a step's pod may stand."""

    key: str
    value: str | None = None
    """Null: any."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Secret(Section):
    """A Kubernetes secret whose values a step gets as environment variables."""

    name: str
    keys: Annotated[dict[str, str], Field(min_length=1)]
    """Key in the secret → environment variable, as `AWS_SECRET_ACCESS_KEY` or `MLFLOW_TRACKING_TOKEN`."""


class Volume(Section):
    """A persistent volume claim that every step's pod mounts."""

    claim: str
    path: Annotated[str, Field(pattern="^/.")]
    """Where in the container: data that params.yaml names lies there."""


class Resources(Section):
    """What a step's pod asks for; null: the cluster's default."""

    cpu: Quantity | None = None
    """Cores: `4` or `500m`."""
    memory: Quantity | None = None
    """`16Gi`."""
    accelerator: str | None = None
    """Resource name, such as `nvidia.com/gpu`."""
    accelerators: Annotated[int, Field(ge=0, le=16)] = 0
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: Quantity | None = None
    """Size of `/dev/shm`: `8Gi`; processes that share GPUs' work talk through it, and get one in any case."""
    scratch: Quantity | None = None
    """Size of the volume at `/tmp`, through which data from s3:// passes: `50Gi`; null: the node's own disk."""

    timeout: Positive | None = None
    """Seconds after which the pod is ended, waiting for its image, secrets or volumes included."""

    @model_validator(mode="after")
    def _both(self) -> Resources:
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("accelerator and accelerators belong together: name the resource and how many")
        return self


STEPS = (
    "plan", "prepare", "teacher", "cache", "merge", "distill", "distill_nodes", "benchmark_teacher", "benchmark",
    "compare", "report", "gate", "promote", "refuse", "record",
)  # fmt: skip


class Kubernetes(Section):
    """How a pipeline's steps run on a cluster; written into the compiled pipeline, ignored by local runs."""

    default: Resources = Resources()
    """For steps not named in `steps`."""
    steps: dict[str, Resources] = {}
    """Step → resources."""
    secrets: tuple[Secret, ...] = ()
    environment: dict[str, str] = {}
    """Environment variables of every step, such as AWS_ENDPOINT_URL; what is secret goes into `secrets`."""
    image_pull_secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    store: Annotated[str, Field(pattern=r"^$|^s3://[^/]+")] = ""
    """s3:// prefix for shards and teacher cache, which then do not pass through Kubeflow's artifacts, and for the work
    of the long steps, which go on from it when their pod is lost; empty: Kubeflow's artifacts only."""
    cache_parts: Few = 1
    """Pods that the teacher cache is embedded in, at most one a shard."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Of a step whose pod has failed, all but the first; network errors are tried again inside every step as well."""
    backoff: Annotated[str, Field(pattern=r"^[1-9]\d*s$")] = "30s"
    """Before the first retry; doubled each time."""
    nodes: Few = 1
    """That train one student together, each as `steps.distill` asks; more than one: by a job of `engine`, and they meet
    in `store`."""
    engine: Literal["trainjob", "pytorchjob"] = "trainjob"
    """Of many nodes: Kubeflow's Trainer 2, or its forerunner, the Training Operator 1."""
    parallelism: Few = 4
    """Most students trained, or parts of the cache embedded, at once; fixed when the pipeline is compiled."""

    @field_validator("environment")
    @classmethod
    def _not_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if re.search("SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY", name, re.IGNORECASE):
                raise ValueError(f"{name} looks like a secret, and this stands in the compiled pipeline; use `secrets`")
        return value

    @field_validator("volumes")
    @classmethod
    def _once(cls, value: tuple[Volume, ...]) -> tuple[Volume, ...]:
        claims = [volume.claim for volume in value]
        if twice := [claim for claim in claims if claims.count(claim) > 1]:
            raise ValueError(f"claim '{twice[0]}' is mounted twice; Kubeflow can do that once")
        return value

    @field_validator("steps")
    @classmethod
    def _known(cls, value: dict[str, Resources]) -> dict[str, Resources]:
        if unknown := sorted(set(value) - set(STEPS)):
            raise ValueError(f"no step '{unknown[0]}'; the steps are {', '.join(STEPS)}")
        return value
