"""A pipeline and its versions on the server: found by name, uploaded once for the same content."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from cliprd.errors import CliprdError, InputError
from cliprd.kubeflow.client import Api, Exists, NotFound

Documents = tuple[dict[str, Any], dict[str, Any]]
"""A compiled pipeline: pipeline spec and platform spec (empty where it has none)."""

FOR_LATER = "for the next attempt"


def documents(text: str) -> Documents:
    """The two documents of a compiled pipeline's YAML."""
    spec, *more = yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml where it is
    return spec, more[0] if more else {}


def version_name(text: str) -> str:
    """Name of a compiled pipeline's version: a digest of its content."""
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def uploaded(api: Api, text: str) -> Iterator[Any]:
    """The server's version of this compiled pipeline, uploaded if it lacks it, for a block that starts it.

    What was uploaded is removed again if the server refuses the block's request. It stays for the next attempt after a
    retryable error, whose request may have been carried out.

    Raises:
        CliprdError: of the upload or of the block; its remedy names what stays on the server.
    """
    made: list[_Made] = []
    try:
        yield _find_or_make(api, text, made)
    except CliprdError as error:
        why = FOR_LATER if error.retryable else _undo(made)
        if made:
            raise type(error)(error.problem, f"{error.remedy} {_remains(made, why)}") from error
        raise
    except KeyboardInterrupt:
        if made:
            print(f"cliprd: {_remains(made, FOR_LATER)}", file=sys.stderr)
        raise


@dataclass(frozen=True)
class _Made:
    """Something that this process has made on the server."""

    name: str
    page: str
    remove: Callable[[], Any]


def _find_or_make(api: Api, text: str, made: list[_Made]) -> Any:
    info = documents(text)[0]["pipelineInfo"]
    name, digest = info["name"], version_name(text)
    pipeline = _pipeline(api, name) or _create(api, name, info.get("description", ""), made)
    known = _version(api, pipeline, digest)
    version = known or _upload(api, pipeline, digest, text, made)
    print(f"pipeline {name}: version {digest} {'is there already' if known else 'uploaded'}")
    return version


def _undo(made: list[_Made]) -> str:
    """Remove what was made, the latest first; where the server refuses that, its reason."""
    while made:
        try:
            made[-1].remove()
        except NotFound:
            pass
        except CliprdError as error:
            return f"it cannot be removed: {error.problem.rstrip('.')}"
        print(f"{made.pop().name} is removed again")
    return ""


def _remains(made: list[_Made], why: str) -> str:
    return f"On the server stays {made[-1].name} ({why}); its page, to remove it: {made[-1].page}"


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


def _create(api: Api, name: str, description: str, made: list[_Made]) -> Any:
    new = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, description=description, namespace=api.namespace)
    requests = api.client._pipelines_api
    try:
        pipeline = requests.pipeline_service_create_pipeline(new)
    except Exists:  # somebody was faster
        if found := _pipeline(api, name):
            return found
        raise
    identity = pipeline.pipeline_id
    page = api.link("pipelines", identity)
    made.append(_Made(f"pipeline {name}", page, lambda: requests.pipeline_service_delete_pipeline(identity)))
    return pipeline


def _upload(api: Api, pipeline: Any, name: str, text: str, made: list[_Made]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{pipeline.display_name}.yaml"
        package.write_text(text, encoding="utf-8")
        try:
            upload = api.client._upload_api.upload_pipeline_version
            version = upload(str(package), name=name, pipelineid=pipeline.pipeline_id)
        except Exists:  # somebody was faster
            if found := _version(api, pipeline, name):
                return found
            raise
    owner, identity = pipeline.pipeline_id, version.pipeline_version_id
    remove = api.client._pipelines_api.pipeline_service_delete_pipeline_version
    page = f"{api.link('pipelines', owner)}/version/{identity}"
    made.append(_Made(f"version {name} of pipeline {pipeline.display_name}", page, lambda: remove(owner, identity)))
    return version
