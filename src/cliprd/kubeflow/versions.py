"""A pipeline and its versions on the server: found by name, uploaded once for the same content."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from cliprd.errors import InputError
from cliprd.kubeflow.client import Api, Exists

Documents = tuple[dict[str, Any], dict[str, Any]]
"""A compiled pipeline: pipeline spec and platform spec (empty where it has none)."""


def documents(text: str) -> Documents:
    """The two documents of a compiled pipeline's YAML."""
    spec, *more = yaml.safe_load_all(text)
    return spec, more[0] if more else {}


def version_name(text: str) -> str:
    """Name of a compiled pipeline's version: a digest of its content."""
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def upload(api: Api, text: str) -> Any:
    """The server's version of this compiled pipeline, uploaded if it lacks it."""
    info = documents(text)[0]["pipelineInfo"]
    name, digest = info["name"], version_name(text)
    pipeline = _pipeline(api, name) or _create(api, name, info.get("description", ""))
    known = _version(api, pipeline, digest)
    version = known or _upload(api, pipeline, name, digest, text)
    print(f"pipeline {name}: version {digest} {'is there already' if known else 'uploaded'}")
    return version


def newest(api: Api, name: str) -> Any:
    """The version uploaded last.

    Raises:
        InputError: the server has no such pipeline, or no version of it.
    """
    pipeline = _pipeline(api, name)
    if pipeline is not None:
        page = api.client.list_pipeline_versions(pipeline.pipeline_id, page_size=1, sort_by="created_at desc")
        if page.pipeline_versions:
            return page.pipeline_versions[0]
    where = f" in namespace {api.namespace}" if api.namespace else ""
    raise InputError(
        f"{api.host} has no pipeline {name}{where}." if pipeline is None else f"{api.host}: {name} has no version.",
        "Upload it with `cliprd pipeline submit` or `schedule`; check --namespace.",
    )


def version_documents(version: Any) -> Documents:
    """The two documents of a version as the server returns it.

    Raises:
        InputError: it is no pipeline of KFP 2.
    """
    uploaded = version.pipeline_spec or {}
    spec, platform = uploaded.get("pipeline_spec", uploaded), uploaded.get("platform_spec") or {}
    if "dag" not in spec.get("root", {}):
        raise InputError(f"Version {version.display_name} is no pipeline of KFP 2.", "Was it uploaded by hand?")
    return spec, platform


def _pipeline(api: Api, name: str) -> Any | None:
    return api.find(api.client.list_pipelines, "pipelines", name, namespace=api.namespace)


def _version(api: Api, pipeline: Any, name: str) -> Any | None:
    return api.find(api.client.list_pipeline_versions, "pipeline_versions", name, pipeline_id=pipeline.pipeline_id)


def _create(api: Api, name: str, description: str) -> Any:
    new = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, description=description, namespace=api.namespace)
    try:
        return api.client._pipelines_api.pipeline_service_create_pipeline(new)
    except Exists:  # somebody was faster
        if pipeline := _pipeline(api, name):
            return pipeline
        raise


def _upload(api: Api, pipeline: Any, name: str, version: str, text: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{name}.yaml"
        package.write_text(text, encoding="utf-8")
        try:
            upload = api.client._upload_api.upload_pipeline_version
            return upload(str(package), name=version, pipelineid=pipeline.pipeline_id)
        except Exists:  # somebody was faster
            if uploaded := _version(api, pipeline, version):
                return uploaded
            raise
