"""Pipeline `distill`: plan → prepare → teacher → cache → distill → benchmark → report."""

from typing import Any

from cliprd.params import Params
from pipelines.builder import build_pipeline
from pipelines.steps import Inputs, Steps

DESCRIPTION = "Distil one student from a teacher and benchmark both."


def build(params: Params, image: str) -> Any:
    """The pipeline; arguments as of `build_pipeline`."""
    return build_pipeline("distill", DESCRIPTION, _dag, params, image, method="clip_rd-exp", seed=0)


def _dag(steps: Steps, inputs: Inputs) -> None:
    teacher = steps.teacher_side(inputs)
    model = steps.distilled(inputs, teacher, method=inputs["method"], seed=inputs["seed"]).outputs["model"]
    evaluation = steps.evaluation(inputs, teacher, model)
    if steps.kubernetes.fuse:
        steps.benchmark_report(**evaluation, comparing=inputs["compare"])
        return
    steps.report(
        settings=inputs["compare"],
        tracking=inputs["tracking"],
        student=model,
        benchmark=steps.benchmark(**evaluation).outputs["results"],
        teacher=teacher.scores,
    )
