"""The one builder of all pipelines: typed, described inputs with defaults from params.yaml, around a DAG of steps."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from kfp import dsl

from cliprd.errors import ParamsError
from cliprd.params import Params, validate
from pipelines.steps import Inputs, Steps

SECTIONS = ("data", "teacher", "augmentation", "cache", "student", "distill", "benchmark", "compare", "tracking")
DESCRIPTIONS = {
    "method": "baseline, clip_kd, vrd, xrd or clip_rd, with -raw or -exp for the scale mode.",
    "seed": "of the training.",
    "runs": 'every method with every seed, each as {"method": ..., "seed": ...}.',
    "champion": "models:/<name> in MLflow's registry, or s3:// prefix of the champion.",
    "store": "s3:// prefix for shards, teacher cache and checkpoints; empty for Kubeflow's artifacts only.",
    "cache_parts": "pods that the teacher cache is embedded in.",
    "publish": "false: train and gate only.",
}


def build_pipeline(
    name: str,
    description: str,
    dag: Callable[[Steps, Inputs], None],
    params: Params,
    image: str,
    *,
    sections: Sequence[str] = SECTIONS,
    **inputs: Any,
) -> Any:
    """KFP's pipeline `cliprd-<name>`.

    Args:
        name: of the pipeline.
        description: one sentence for the UI.
        dag: makes the tasks, inside KFP's context.
        params: defaults of the inputs, and the steps' resources.
        image: of every step.
        sections: of params.yaml that are inputs.
        inputs: default of each input beside `sections`, `store` and `cache_parts`.

    Raises:
        ParamsError: a key is null whose default is not.
    """
    tree = _without_nulls(params)
    defaults = {
        **{section: tree[section] for section in sections},
        "store": params.kubernetes.store,
        **({} if params.kubernetes.fuse else {"cache_parts": params.kubernetes.cache_parts}),
        **inputs,
    }
    steps = Steps(image, params.kubernetes)

    def pipeline(*channels: Any) -> None:
        dag(steps, dict(zip(defaults, channels, strict=True)))

    # KFP reads names, types and defaults of inputs from the signature, and their descriptions from the docstring.
    pipeline.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=type(value))
            for key, value in defaults.items()
        ]
    )
    described = (f"    {key}: {DESCRIPTIONS.get(key, 'section of params.yaml.')}" for key in defaults)
    pipeline.__doc__ = "\n".join([description, "", "Args:", *described])
    ttl = params.kubernetes.ttl_seconds
    config = dsl.PipelineConfig(ttl_seconds_after_finished=ttl) if ttl else None
    return dsl.pipeline(name=f"cliprd-{name}", description=description, pipeline_config=config)(pipeline)


def _without_nulls(params: Params) -> dict[str, Any]:
    """The sections as defaults of inputs: without nulls, which KFP cannot carry and which are defaults."""
    params = params.model_copy(update={"tracking": params.tracking.in_pods()})
    tree = params.model_dump(mode="json", exclude_none=True)
    if validate(tree, where="pipeline") != params:
        raise ParamsError("A key is null whose default is not, and KFP carries no null.", "Leave such keys out.")
    return tree
