"""A pipeline and its versions on the server: found by name, uploaded once for the same content."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from cliprd.errors import InputError
from cliprd.kubeflow.client import Api, Exists


def documents(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A compiled pipeline's two parts: pipeline spec and platform spec (empty where it has none)."""
    spec, *more = yaml.safe_load_all(text)
    return spec, more[0] if more else {}


def version_name(text: str) -> str:
    """Of a compiled pipeline: made of its content."""
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def find_pipeline(api: Api, name: str) -> Any | None:
    """The server's pipeline of this name, or None."""
    found = api.find(api.client.list_pipelines, "pipelines", name, namespace=api.namespace)
    return found[0] if found else None


def upload(api: Api, text: str) -> tuple[Any, bool]:
    """Make sure that the server has this compiled pipeline.

    Returns:
        Its version there, and whether it is new.
    """
    spec, _ = documents(text)
    name = spec["pipelineInfo"]["name"]
    pipeline = find_pipeline(api, name) or _create(api, name, spec["pipelineInfo"].get("description", ""))
    version = version_name(text)
    if found := _versions(api, pipeline, version):
        return found[0], False
    with tempfile.TemporaryDirectory() as place:
        package = Path(place) / f"{name}.yaml"
        package.write_text(text, encoding="utf-8")
        try:
            return api.client._upload_api.upload_pipeline_version(
                str(package), name=version, pipelineid=pipeline.pipeline_id
            ), True
        except Exists:  # somebody was faster
            if found := _versions(api, pipeline, version):
                return found[0], False
            raise


def newest(api: Api, name: str) -> Any:
    """The version uploaded last.

    Raises:
        InputError: the server has no such pipeline, or no version of it.
    """
    pipeline = find_pipeline(api, name)
    if pipeline is not None:
        page = api.client.list_pipeline_versions(pipeline.pipeline_id, page_size=1, sort_by="created_at desc")
        if page.pipeline_versions:
            return page.pipeline_versions[0]
    where = f" in namespace {api.namespace}" if api.namespace else ""
    raise InputError(
        f"{api.host} has no pipeline {name}{where}." if pipeline is None else f"{api.host}: {name} has no version.",
        "Upload it with `cliprd pipeline submit` or `schedule`; check --namespace.",
    )


def parts(version: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Pipeline spec and platform spec of a version as the server tells it.

    Raises:
        InputError: it is no pipeline of KFP 2.
    """
    told = version.pipeline_spec or {}
    spec, platform = (told["pipeline_spec"], told.get("platform_spec") or {}) if "pipeline_spec" in told else (told, {})
    if "dag" not in spec.get("root", {}):
        raise InputError(f"Version {version.display_name} there is no pipeline of KFP 2.", "Was it uploaded by hand?")
    return spec, platform


def _versions(api: Api, pipeline: Any, name: str) -> list[Any]:
    return api.find(api.client.list_pipeline_versions, "pipeline_versions", name, pipeline_id=pipeline.pipeline_id)


def _create(api: Api, name: str, description: str) -> Any:
    wanted = kfp_server_api.V2beta1Pipeline(
        display_name=name, name=name, description=description, namespace=api.namespace
    )
    try:
        return api.client._pipelines_api.pipeline_service_create_pipeline(wanted)
    except Exists:
        found = find_pipeline(api, name)
        if found is None:
            raise
        return found
