"""What the commands of a cluster share: options of the image and the server, the parameters, the connection."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cliprd.cli.common import load
from cliprd.names import visible

if TYPE_CHECKING:
    from cliprd.kubeflow.client import Api
    from cliprd.params import Params

PIPELINES = ("distill", "ablation", "retrain")


def add_image_options(sub: argparse.ArgumentParser) -> None:
    """The image that the steps run in."""
    sub.add_argument(
        "--image", metavar="NAME", help="image that the steps run in; default: the content-made tag of `make images`"
    )
    sub.add_argument("--allow-mutable-image", action="store_true", help="accept a tag that can move")


def add_server_options(sub: argparse.ArgumentParser) -> None:
    """The server, and who asks."""
    sub.add_argument("--host", metavar="URL", help="address of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT")
    sub.add_argument("--namespace", metavar="NAME", help="your profile, in multi-user Kubeflow")
    sub.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with a token; default: the token in KFP_TOKEN"
    )


def add_run_options(sub: argparse.ArgumentParser) -> None:
    """What a run is started with."""
    sub.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the pipeline")
    sub.add_argument("--experiment", metavar="NAME", help="experiment of the run; default: tracking.experiment")


def parameters_and_image(options: argparse.Namespace) -> tuple[Params, str]:
    """The parameter tree, and the image of the steps."""
    from cliprd.extras import need
    from cliprd.kubeflow.image import choose_image

    need("kubeflow", "A pipeline")
    tree = load(options)
    if tree.tracking != tree.tracking.in_pods():
        from cliprd.tracking.server import shown

        uri = visible(shown(tree.tracking.uri))
        print(f"cliprd: not tracked: pods cannot use tracking.uri = {uri}, only an http(s) address", file=sys.stderr)
    in_processes = getattr(options, "local", None) == "process"
    mutable = options.allow_mutable_image
    return tree, choose_image(options.image, tree.kubernetes, allow_mutable=mutable, in_processes=in_processes)


def connect(options: argparse.Namespace) -> Api:
    """The server that the options name."""
    from cliprd.kubeflow.client import connect

    return connect(options.host, namespace=options.namespace, token_file=options.token_file)


def warn_of_images(options: argparse.Namespace, image: str, slim: str = "") -> None:
    """A line where a cluster may not have an image; an error where it cannot."""
    from cliprd.kubeflow.submit import check_pullable

    for name, chosen in {image: bool(options.image), slim: True}.items():
        if name and (warning := check_pullable(name, chosen=chosen)):
            print(f"cliprd: {warning}", file=sys.stderr)


def warn_of_retries(tree: Params) -> None:
    """A line on what `kubernetes.retries` depends on."""
    from cliprd.kubeflow.submit import retry_warning

    if warning := retry_warning(tree):
        print(f"cliprd: {warning}", file=sys.stderr)
