"""Pipeline `retrain`: distil a student, compare it with the champion, and promote it if it is significantly better."""

from typing import Any

from kfp import dsl

from cliprd.params import Params
from pipelines.builder import SECTIONS, build_pipeline
from pipelines.steps import Inputs, Steps

DESCRIPTION = "Distil a student and promote it if it is better than the champion."


def build(params: Params, image: str) -> Any:
    """The pipeline; arguments as of `build_pipeline`."""
    inputs = {"method": "clip_rd-exp", "seed": 0, "champion": params.promote.champion, "publish": True}
    return build_pipeline("retrain", DESCRIPTION, _dag, params, image, sections=(*SECTIONS, "promote"), **inputs)


def _dag(steps: Steps, inputs: Inputs) -> None:
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    common = {"tracking": inputs["tracking"], "champion": inputs["champion"], "run": run}
    with dsl.ExitHandler(steps.record(**common)):
        teacher = steps.teacher_side(inputs)
        made = steps.student_side(inputs, teacher, method=inputs["method"], seed=inputs["seed"])
        candidate = {**common, "settings": inputs["promote"], "results": made.results}
        gate = steps.gate(**candidate, compare=inputs["compare"], publish=inputs["publish"])
        candidate |= {"model": made.model, "decision": gate.outputs["decision"]}
        with dsl.If(inputs["publish"] == True):  # noqa: E712 (an expression of the pipeline)
            with dsl.If(gate.outputs["Output"] == True):  # noqa: E712
                steps.promote(**candidate)
            with dsl.If(gate.outputs["Output"] == False):  # noqa: E712
                steps.refuse(**candidate)
