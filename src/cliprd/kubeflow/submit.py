"""Start a pipeline on a Kubeflow cluster; its errors are reported before anything is sent."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from cliprd.errors import ParamsError, RetryableError
from cliprd.kubeflow.client import Api, NotFound
from cliprd.kubeflow.compile import compile_pipeline
from cliprd.kubeflow.inputs import check_inputs, parse_inputs
from cliprd.kubeflow.versions import documents, uploaded, version_name
from cliprd.params import Kubernetes, Params


@dataclass(frozen=True)
class Submission:
    """A compiled pipeline with checked inputs: all that can be known without a server.

    Attributes:
        name: of the pipeline on the server: `cliprd-distill`.
        text: its YAML.
        arguments: input → value.
        image: image that every step runs in.
        kubernetes: the resources of its steps, as compiled into it.
    """

    name: str
    text: str
    arguments: Mapping[str, Any]
    image: str
    kubernetes: Kubernetes

    @property
    def description(self) -> str:
        """Version and image, for the UI."""
        return f"{version_name(self.text)}, {self.image}"


def compile_submission(pipeline: str, params: Params, image: str, inputs: Sequence[str]) -> Submission:
    """Compile a pipeline and check its inputs.

    Args:
        pipeline: one of `cliprd.kubeflow.compile.NAMES`.
        params: defaults of its inputs, and its resources.
        image: image that every step runs in.
        inputs: `NAME=VALUE` items.

    Raises:
        ParamsError: an input that the pipeline lacks or a step would refuse.
    """
    values = parse_inputs(inputs)
    text = compile_pipeline(pipeline, params, image)
    spec, _ = documents(text)
    arguments = check_inputs(values, spec["root"].get("inputDefinitions", {}).get("parameters", {}))
    return Submission(spec["pipelineInfo"]["name"], text, arguments, image, params.kubernetes)


def check_pullable(image: str, *, chosen: bool) -> str | None:
    """Whether a cluster can pull this image.

    Args:
        image: its name.
        chosen: the user named it, so the cluster's nodes may have it already.

    Returns:
        A warning, or None.

    Raises:
        ParamsError: the default name, which no registry holds.
    """
    if "/" in image:
        return None
    if chosen:
        return f"{image} names no registry: every node must have it already (kind load, minikube image load)."
    raise ParamsError(
        f"A cluster cannot pull {image}: only this machine has it.",
        "Push it, then give --image registry/name@sha256:...; or --image and this name if the nodes have it already.",
    )


def retry_warning(params: Params) -> str | None:
    """What `kubernetes.retries` does not promise; None without retries.

    The pipeline's YAML has a number of retries and a back-off, but no policy: the cluster's decides what is repeated.
    """
    if not params.kubernetes.retries:
        return None
    return (
        f"kubernetes.retries = {params.kubernetes.retries}: the cluster's retryPolicy decides which pods are repeated;"
        " KFP 2.17.0's, OnError, repeats deleted pods and none that failed, out of memory for one: docs/kubeflow.md,"
        " Retries"
    )


def submit(api: Api, submission: Submission, *, experiment: str, run_name: str | None, cache: bool) -> Any:
    """Upload the pipeline if the server lacks this content, and start a run; a refused one leaves no version behind.

    Args:
        api: the connection.
        submission: what to run.
        experiment: group of runs in the UI; made if it does not exist.
        run_name: None: pipeline and time.
        cache: False: this run repeats every step, regardless of KFP's cache.

    Returns:
        The server's run.
    """
    group = find_experiment(api, experiment)  # refused before anything is uploaded
    with uploaded(api, submission.text) as version:
        new = kfp_server_api.V2beta1Run(
            experiment_id=group.experiment_id,
            display_name=run_name or f"{submission.name} {datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
            description=f"{submission.description}{'' if cache else ', without cache'}",
            **run_source(submission, version, cache=cache),
        )
        run = _create_run(api, new)
    print(f"run {run.display_name}: {api.link('runs', run.run_id)}", flush=True)
    return run


def _create_run(api: Api, new: Any) -> Any:
    try:
        return api.client._run_api.run_service_create_run(run=new)
    except RetryableError as error:  # it may have been started before the answer was lost
        run = _started(api, new)
        if run is None:
            raise
        print(f"cliprd: {error.problem} The run was started nevertheless.")
        return run


def run_source(submission: Submission, version: Any, *, cache: bool) -> dict[str, Any]:
    """What a run is made of: its arguments with a version or, without cache, with the spec itself.

    KFP's caching is a property of the spec; kfp's client silently drops the option together with a version, and it does
    not reach into loops either.
    """
    config = {"runtime_config": kfp_server_api.V2beta1RuntimeConfig(parameters=dict(submission.arguments))}
    if cache:
        reference = kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        )
        return {**config, "pipeline_version_reference": reference}
    spec, platform = documents(submission.text)
    for dag in dags(spec).values():
        for task in dag["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    return {**config, "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform} if platform else spec}


def dags(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name → DAG of a pipeline spec: `root` and those of its loops and conditions."""
    inner = {name: value["dag"] for name, value in spec.get("components", {}).items() if "dag" in value}
    return {"root": spec["root"]["dag"], **inner}


def find_experiment(api: Api, name: str) -> Any:
    """The experiment of this name; made if it does not exist."""
    if experiment := api.find(api.client.list_experiments, "experiments", name, namespace=api.namespace):
        return experiment
    new = kfp_server_api.V2beta1Experiment(display_name=name, namespace=api.namespace)
    return api.client._experiment_api.experiment_service_create_experiment(experiment=new)


def _started(api: Api, run: Any) -> Any | None:
    try:
        return api.find(api.client.list_runs, "runs", run.display_name, experiment_id=run.experiment_id)
    except (RetryableError, NotFound):
        return None
