"""Run a pipeline on this machine, in containers or in processes, with KFP's own local runners."""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cliprd.errors import CliprdError, MachineError
from cliprd.kubeflow.compile import build
from cliprd.kubeflow.observe import Observer
from cliprd.params import Params

IMAGE_USER, IMAGE_WORKDIR = 10001, Path("/opt/cliprd")  # as in docker/Dockerfile
PASSED = ("AWS_", "MLFLOW_", "CLIPRD_CACHE_BYTES")  # of the caller's environment, to steps in containers
NOT_PASSED = {"AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"}  # files of this machine


class StepFailed(CliprdError):
    """A step of a local run failed."""


@dataclass(frozen=True)
class LocalRun:
    """A finished local run.

    Attributes:
        folder: its outputs, a folder each step that ran.
        steps: how many ran. reused: how many were finished already.
    """

    folder: Path
    steps: int
    reused: int


def run_locally(
    name: str, params: Params, image: str, *, runner: str, root: Path, arguments: Mapping[str, Any]
) -> LocalRun:
    """Run a pipeline to its end; a step that an earlier run in the same root has finished is reused.

    Args:
        name: one of `cliprd.kubeflow.compile.NAMES`.
        params: defaults of its inputs.
        image: image of the steps; not used by processes.
        runner: `docker` or `process`.
        root: folder for outputs, logs and the local cache.
        arguments: of the pipeline.

    Raises:
        StepFailed: a step failed, or KFP reported SUCCESS though its output is not complete.
        MachineError: no Docker engine, or it lacks the image.
    """
    from kfp import local

    root = root.resolve()
    outputs, logs = root / "runs", root / "logs"
    for folder in (outputs, logs):
        folder.mkdir(parents=True, exist_ok=True)
    if runner == "docker" and os.getuid() == 0:
        os.chown(outputs, IMAGE_USER, IMAGE_USER)  # containers never run as root, not even root's
    before = set(outputs.iterdir())
    local.init(
        local.SubprocessRunner(use_venv=False) if runner == "process" else _containers(params, image),
        pipeline_root=str(outputs),
        enable_caching=True,
        cache_root=str(root / "cache"),
        workspace_root=str(root / "workspace"),  # not used; without it, each run would leave a folder in /tmp
    )
    pipeline = build(name, _on_one_machine(params, runner), image)
    path = logs / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.log"
    with path.open("w", encoding="utf-8") as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "image is not named python", settings without effect here
        observer = Observer(sys.stdout, log)
        try:
            with observer.watching():
                pipeline(**arguments)
        except RuntimeError as error:
            problem = observer.problem or _first_line(error)
            raise StepFailed(f"pipeline {name}: {problem}", f"The complete log: {path}") from error
    (output,) = set(outputs.iterdir()) - before
    return LocalRun(output, observer.ran, observer.reused)


def _on_one_machine(params: Params, runner: str) -> Params:
    """One node and no retries, as nothing is preempted here. No environment in containers: KFP's runner would let a
    step's own replace all that it passes on."""
    changed: dict[str, Any] = {"retries": 0, "nodes": 1, "ttl_seconds": None} | (
        {"environment": {}} if runner == "docker" else {}
    )
    return params.model_copy(update={"kubernetes": params.kubernetes.model_copy(update=changed)})


def _containers(params: Params, image: str) -> Any:
    from kfp import local

    import docker

    try:
        for name in filter(None, (image, params.kubernetes.slim_image)):
            docker.from_env().images.get(name)
    except docker.errors.ImageNotFound as error:
        raise MachineError(f"The Docker engine has no image {name}.", "Build it: make images.") from error
    except docker.errors.DockerException as error:
        raise MachineError(f"No Docker engine: {_first_line(error)}", "Start one, or use --local process.") from error
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED) and name not in NOT_PASSED}
    environment = {**params.kubernetes.environment, **_credentials(params), **passed}
    addresses = [params.tracking.uri, *(value for name, value in environment.items() if "ENDPOINT" in name)]
    local_servers = any(urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1") for address in addresses)
    return local.DockerRunner(
        user=f"{os.getuid() or IMAGE_USER}",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": ""},  # noqa: S108
        shm_size="1g",
        environment=environment,
        network_mode="host" if local_servers else "bridge",  # this machine's servers are not in another network
        mounts=[
            docker.types.Mount(target, source, type="bind", read_only=True)
            for target, source in _sources(params).items()
        ],
    )


def _credentials(params: Params) -> dict[str, str]:
    """Those that boto3 finds in this machine's files, where the pipeline reads S3: no container sees the files."""
    if "s3://" not in params.model_dump_json():
        return {}
    import boto3

    credentials = boto3.Session().get_credentials()
    if credentials is None:
        return {}
    keys = credentials.get_frozen_credentials()
    named = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token,
    }
    return {name: value for name, value in named.items() if value}


def _sources(params: Params) -> dict[str, str]:
    """Container's path → path here, of the local folders in the parameters; relative paths stay relative."""
    sources = {}
    for pattern in (params.data.path, params.benchmark.tasks):
        if "://" in pattern:
            continue
        path = Path(re.split(r"[*?\[{]", pattern)[0])
        top = path if path.is_absolute() else Path(path.parts[0])  # its neighbours too: links may lead there
        top = top if top.is_dir() else top.parent
        sources[str(IMAGE_WORKDIR / top)] = str(top.resolve())
    return sources


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
