"""Images that a pipeline's steps run in: their names fix their content, or they are refused.

KFP's cache key holds the image's name, not its content: behind a tag that moves, a rebuilt image gets the results of
the old one (kubeflow/pipelines#13862).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cliprd.artifact import identity
from cliprd.errors import ParamsError
from cliprd.params import Kubernetes

ROOT = Path(__file__).parents[3]
CONTENT = (
    "docker/Dockerfile",
    "LICENSE",
    "pyproject.toml",
    "requirements.lock",
    "requirements-image.lock",
    "requirements-slim.lock",
    "requirements-torch.lock",
    "requirements-uv.lock",
    "src",
    "data/demo",
)
NAME = "cliprd"
TARGETS = ("cpu", "cuda", "slim")
CONTENT_TAG = re.compile(rf":({'|'.join(TARGETS)})-[0-9a-f]{{12}}$")
WITHOUT_TORCH = ("prepare", "compare", "compare_stored", "report", "gate", "promote", "refuse", "record")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def content_tag(target: str, root: Path = ROOT) -> str:
    """`cliprd:<target>-<12 hex digits>` of all that goes into the image; `make images` gives it this name.

    Raises:
        ParamsError: `root` is no checkout of cliprd's repository, so no image can be built here.
    """
    if not _is_checkout(root):
        raise ParamsError(
            "The default image is the one that `make images` builds in a checkout of cliprd's repository; "
            "this cliprd is installed from a wheel.",
            "Name the image of this version: --image REGISTRY/cliprd@sha256:...",
        )
    digest = hashlib.sha256()
    for name in CONTENT:
        source = root / name
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for path in files:
            if "__pycache__" in path.parts or path.suffix == ".pyc":
                continue
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{NAME}:{target}-{digest.hexdigest()[:12]}"


def _is_checkout(root: Path) -> bool:
    return all((root / name).exists() for name in CONTENT)


def choose_image(
    name: str | None, kubernetes: Kubernetes, *, allow_mutable: bool = False, in_processes: bool = False
) -> str:
    """The image that was asked for, checked; else the content-made tag: `cuda` where a step asks for an accelerator.

    Args:
        name: None: the default.
        kubernetes: which steps ask for accelerators.
        allow_mutable: take a tag that can move.
        in_processes: the steps run here, in no image: the name is only what KFP's cache goes by, and where there is no
            checkout the installed code makes it.

    Raises:
        ParamsError: its name can move, or it hides the accelerators from the steps.
    """
    resources = {**kubernetes.steps, "default": kubernetes.default}
    on_gpu = [step for step, request in resources.items() if request.accelerators]
    if name is None and in_processes and not _is_checkout(ROOT):
        return f"{NAME}:cpu-{identity.sources()[:12]}"
    image = check_image(name or content_tag("cuda" if on_gpu else "cpu"), allow_mutable=allow_mutable)
    match = CONTENT_TAG.search(image)
    if match and match[1] == "slim":
        raise ParamsError(
            f"--image {image}: target `slim` has no torch, which most steps need.",
            "Name target cpu or cuda here, and this one as kubernetes.slim_image.",
        )
    if kubernetes.slim_image:
        check_image(kubernetes.slim_image, allow_mutable=allow_mutable, given_as="kubernetes.slim_image =")
    if on_gpu and match and match[1] == "cpu":
        raise ParamsError(
            f"--image {image}: target `cpu` hides GPUs, and kubernetes.steps.{on_gpu[0]} asks for accelerators.",
            "Build and name target cuda: make images TARGETS=cuda",
        )
    return image


def image_of(step: str, image: str, kubernetes: Kubernetes) -> str:
    """The image of a step: `image`, or the slim one, where there is one and the step needs no torch."""
    return kubernetes.slim_image if kubernetes.slim_image and step in WITHOUT_TORCH else image


def check_image(image: str, *, allow_mutable: bool = False, given_as: str = "--image") -> str:
    """`image`, if its name fixes its content.

    Raises:
        ParamsError: a tag that can move, or none (which means `latest`).
    """
    if allow_mutable or _DIGEST.search(image) or CONTENT_TAG.search(image):
        return image
    raise ParamsError(
        f"{given_as} {image}: this name can come to mean another image, and cached steps would be wrong.",
        "Give name@sha256:..., or the content-made tag of `make images`; or --allow-mutable-image.",
    )
