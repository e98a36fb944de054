"""Start a pipeline on a Kubeflow cluster: what is wrong with it is said before anything is sent."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from cliprd.errors import ParamsError, RetryableError
from cliprd.kubeflow.client import Api, NotFound
from cliprd.kubeflow.compile import compile_pipeline
from cliprd.kubeflow.inputs import check, parse
from cliprd.kubeflow.versions import documents, upload, version_name
from cliprd.params import Params


@dataclass(frozen=True)
class Order:
    """A compiled pipeline with checked inputs: all that can be known without a server."""

    name: str
    """Of the pipeline on the server: `cliprd-distill`."""
    text: str
    """Its YAML."""
    arguments: Mapping[str, Any]
    image: str


def order(pipeline: str, params: Params, image: str, inputs: Sequence[str]) -> Order:
    """Compile a pipeline and check its inputs.

    Args:
        pipeline: one of `cliprd.kubeflow.compile.NAMES`.
        params: defaults of its inputs, and its resources.
        image: for every step.
        inputs: `NAME=VALUE` items.

    Raises:
        ParamsError: an input that the pipeline lacks or a step would refuse.
    """
    given = parse(inputs)
    text = compile_pipeline(pipeline, params, image)
    spec, _ = documents(text)
    arguments = check(given, spec["root"].get("inputDefinitions", {}).get("parameters", {}))
    return Order(spec["pipelineInfo"]["name"], text, arguments, image)


def pullable(image: str, *, given: bool) -> str | None:
    """Whether a cluster can get this image.

    Args:
        image: its name.
        given: somebody named it, so it may lie on the cluster's nodes.

    Returns:
        A warning, or None.

    Raises:
        ParamsError: the default name, which no registry holds.
    """
    if "/" in image:
        return None
    if given:
        return f"{image} names no registry: it must lie on every node already (kind load, minikube image load)."
    raise ParamsError(
        f"A cluster cannot pull {image}: it is this machine's own.",
        "Push it, then give --image registry/name@sha256:...; or --image and this name if the nodes hold it already.",
    )


def submit(api: Api, ordered: Order, *, experiment: str, run_name: str | None, cache: bool) -> Any:
    """Upload the pipeline if the server lacks this content, and start a run.

    Args:
        api: the connection.
        ordered: what to run.
        experiment: group of runs in the UI; made if it is not there.
        run_name: None: pipeline and time.
        cache: False: this run repeats every step, whatever KFP's cache holds.

    Returns:
        The run, as the server tells it.
    """
    version, new = upload(api, ordered.text)
    print(f"pipeline {ordered.name}: version {version_name(ordered.text)} {'uploaded' if new else 'is there already'}")
    wanted = kfp_server_api.V2beta1Run(
        experiment_id=find_experiment(api, experiment).experiment_id,
        display_name=run_name or f"{ordered.name} {datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
        description=f"{version_name(ordered.text)}, {ordered.image}{'' if cache else ', without cache'}",
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(ordered.arguments)),
        **source(version, ordered.text, cache=cache),
    )
    try:
        run = api.client._run_api.run_service_create_run(run=wanted)
    except RetryableError as error:  # it may have been started before the answer was lost
        found = _started(api, wanted)
        if found is None:
            raise
        print(f"cliprd: {error.problem} The run was started nevertheless.")
        run = found
    print(f"run {run.display_name}: {api.link('runs', run.run_id)}", flush=True)
    return run


def source(version: Any, text: str, *, cache: bool) -> dict[str, Any]:
    """What a run is made of: a version; or, without cache, the spec itself.

    KFP's caching is a property of the spec; asked for together with a version, kfp's client drops it silently, and it
    does not reach into loops either.
    """
    if cache:
        reference = kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        )
        return {"pipeline_version_reference": reference}
    spec, platform = documents(text)
    for dag in dags(spec).values():
        for task in dag["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    return {"pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform} if platform else spec}


def dags(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name → DAG of a pipeline spec: `root` and those of its loops and conditions."""
    inner = {name: value["dag"] for name, value in spec.get("components", {}).items() if "dag" in value}
    return {"root": spec["root"]["dag"], **inner}


def find_experiment(api: Api, name: str) -> Any:
    """The experiment of this name, made if it is not there."""
    found = api.find(api.client.list_experiments, "experiments", name, namespace=api.namespace)
    if found:
        return found[0]
    wanted = kfp_server_api.V2beta1Experiment(display_name=name, namespace=api.namespace)
    return api.client._experiment_api.experiment_service_create_experiment(experiment=wanted)


def _started(api: Api, wanted: Any) -> Any | None:
    try:
        found = api.find(api.client.list_runs, "runs", wanted.display_name, experiment_id=wanted.experiment_id)
    except (RetryableError, NotFound):
        return None
    return found[0] if found else None
