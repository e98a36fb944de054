"""Pipelines as KFP's YAML: the same text for the same parameters and image."""

from __future__ import annotations

import itertools
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kfp import compiler

from cliprd.params import Params

NAMES = ("distill", "ablation", "retrain")


def build(name: str, params: Params, image: str) -> Any:
    """KFP's pipeline of this name, from the entry points `cliprd.pipelines`; arguments as of `compile_pipeline`."""
    (builder,) = entry_points(group="cliprd.pipelines", name=name)
    return builder.load()(params, image)


def compile_pipeline(name: str, params: Params, image: str) -> str:
    """The YAML of one pipeline.

    Args:
        name: one of `NAMES`.
        params: defaults of its inputs, and its resources.
        image: image of the steps; see `cliprd.kubeflow.image`.
    """
    pipeline = build(name, params, image)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(target))
        text = target.read_text(encoding="utf-8")
    # KFP heads the file with the inputs as comments, in another order each time.
    body = "".join(itertools.dropwhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    return f"# Made by `cliprd pipeline compile`; do not edit.\n{body}"
