"""The Docker engine and cliprd's own image, as `make images` makes it; without them tests skip, and fail in CI."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import docker
from cliprd.kubeflow.image import content_tag


def missing(reason: str) -> None:
    """Skip, but never in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def image(target: str = "cpu") -> str:
    """The image's name."""
    name = content_tag(target)
    try:
        docker.from_env().images.get(name)
    except docker.errors.ImageNotFound:
        missing(f"the Docker engine has no image {name}: make images TARGETS={target}")
    except docker.errors.DockerException as error:
        missing(f"no Docker engine: {error}")
    return name


@contextlib.contextmanager
def watched(*names: str, react: Any = None) -> Iterator[list[dict[str, Any]]]:
    """What `docker inspect` says of every container in which KFP's runner runs a step in these images meanwhile.

    Other tests may run containers of the same images at the same time.

    Args:
        react: called with each container found, time and again while it runs.
    """
    client, found, ended = docker.from_env(), {}, threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for container in client.containers.list(filters={"ancestor": [*names]}, ignore_removed=True):
                if "kfp.dsl.executor_main" not in " ".join(container.attrs["Config"]["Cmd"] or []):
                    continue
                found.setdefault(container.id, container.attrs)
                if react is not None:
                    react(container)

    seen: list[dict[str, Any]] = []
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        seen += found.values()
