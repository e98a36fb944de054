"""Pipeline `distill`: plan → prepare → teacher → cache → distill → benchmark → report."""

from typing import Any

from cliprd.params import Params
from pipelines.builder import Inputs, build_pipeline
from pipelines.steps import Steps

DESCRIPTION = "Distil one student from a teacher and benchmark both."


def build(params: Params, image: str) -> Any:
    """The pipeline; arguments as of `build_pipeline`."""
    return build_pipeline("distill", DESCRIPTION, _dag, params, image, method="clip_rd-exp", seed=0)


def _dag(steps: Steps, inputs: Inputs) -> None:
    teacher = steps.teacher_side(inputs)
    trained, scored = steps.student_side(inputs, teacher, method=inputs["method"], seed=inputs["seed"])
    steps.report(
        settings=inputs["compare"],
        tracking=inputs["tracking"],
        student=trained.outputs["model"],
        benchmark=scored.outputs["results"],
        teacher=teacher["benchmark"].outputs["results"],
    )
