"""Run a pipeline on this machine, in containers or in processes, with KFP's own local runners."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprd import manifest
from cliprd.errors import CliprdError, EnvironmentError_, InputError
from cliprd.params import Params

FOLDERS = {"shards", "model", "embeddings", "results", "comparison"}  # outputs that are stage folders, with a manifest
IMAGE_USER, IMAGE_WORKDIR = 10001, Path("/opt/cliprd")  # as in docker/Dockerfile


class StepFailed(CliprdError):
    """A step of a local run failed; the line above tells why."""


def run(name: str, params: Params, image: str, *, runner: str, root: Path, arguments: Mapping[str, Any]) -> Path | None:
    """Run a pipeline to its end; a step that was finished by an earlier run in the same root is not run again.

    Args:
        name: one of `pipelines.compile.NAMES`.
        params: defaults of its inputs.
        image: for the steps; not used by processes.
        runner: `docker` or `process`.
        root: folder for outputs and the local cache.
        arguments: of the pipeline.

    Returns:
        The run's folder, one folder a step that ran; None where every step was finished already.

    Raises:
        StepFailed: a step failed. InputError: a step said SUCCESS but its output is not whole.
        EnvironmentError_: no Docker engine.
    """
    from kfp import local

    root = root.resolve()
    outputs = root / "runs"
    outputs.mkdir(parents=True, exist_ok=True)
    if runner == "docker" and os.getuid() == 0:
        os.chown(outputs, IMAGE_USER, IMAGE_USER)  # containers never run as root, not even root's
    before = set(outputs.iterdir())
    _drop_unfinished(outputs)
    local.init(_runner(runner, params), pipeline_root=str(outputs), enable_caching=True, cache_root=str(root / "cache"))
    # Nothing is preempted here, and a failure that cannot heal would only be waited for.
    once = params.model_copy(update={"kubernetes": params.kubernetes.model_copy(update={"retries": 0})})
    pipeline = importlib.import_module(f"pipelines.{name}").build(once, image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "image is not named python": processes have no image
            pipeline(**arguments)
    except RuntimeError as error:
        raise StepFailed(f"pipeline {name}: {_first_line(error)}", "Its own message stands above.") from error
    new = set(outputs.iterdir()) - before
    for made in new:
        verify(made)
    return new.pop() if new else None


def verify(run: Path) -> int:
    """Check every stage folder of a run against its manifest; the runner's SUCCESS alone is not believed.

    Returns:
        How many were checked.
    """
    checked = 0
    for record in sorted(run.rglob("executor_output.json")):
        for name, entry in json.loads(record.read_text(encoding="utf-8")).get("artifacts", {}).items():
            if name in FOLDERS:
                for artifact in entry["artifacts"]:
                    manifest.verify(Path(artifact["uri"]))
                    checked += 1
    if not checked:
        raise InputError(f"{run} holds no output of a step.", "Look at the log of the run.")
    return checked


def _drop_unfinished(outputs: Path) -> None:
    """Remove stage folders that are not whole: KFP's cache looks only whether a folder exists, and shall miss these."""
    for place, folders, _ in os.walk(outputs):
        for name in FOLDERS.intersection(folders):
            folders.remove(name)  # what lies inside belongs to it
            try:
                manifest.verify(Path(place, name))
            except InputError as problem:
                print(f"cliprd: {problem.problem} Its step runs again.", file=sys.stderr)
                shutil.rmtree(Path(place, name))


def _runner(kind: str, params: Params) -> Any:
    from kfp import local

    if kind == "process":
        return local.SubprocessRunner(use_venv=False)
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        raise EnvironmentError_(
            f"No Docker engine: {_first_line(error)}", "Start one, or use --local process."
        ) from error
    passed = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "MLFLOW_"))}
    return local.DockerRunner(
        user=f"{os.getuid() or IMAGE_USER}",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": ""},  # noqa: S108
        shm_size="1g",
        environment=passed,
        mounts=[
            docker.types.Mount(target, source, type="bind", read_only=True)
            for target, source in _sources(params).items()
        ],
    )


def _sources(params: Params) -> dict[str, str]:
    """Container path → path here, of the local folders that the parameters name; relative ones keep their place."""
    found = {}
    for place in (params.data.path, params.benchmark.tasks):
        if "://" in place:
            continue
        fixed = Path(re.split(r"[*?\[{]", place)[0])
        top = fixed if fixed.is_absolute() else Path(fixed.parts[0])  # its neighbours too: links may lead there
        top = top if top.is_dir() else top.parent
        found[str(IMAGE_WORKDIR / top)] = str(top.resolve())
    return found


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
