"""Pipeline `ablation`: one teacher side, a student for every run, all of them in one comparison."""

from typing import Any

from kfp import dsl

from cliprd.params import Params
from pipelines.builder import Inputs, build_pipeline
from pipelines.steps import Steps

DESCRIPTION = "Distil a student for every method and seed, and compare them."


def build(params: Params, image: str) -> Any:
    """The pipeline; `ablation.methods` × `ablation.seeds` is the default of its input `runs`."""
    grid = [{"method": method, "seed": seed} for method in params.ablation.methods for seed in params.ablation.seeds]
    return build_pipeline("ablation", DESCRIPTION, _dag, params, image, runs=grid)


def _dag(steps: Steps, inputs: Inputs) -> None:
    teacher = steps.teacher_side(inputs)
    with dsl.ParallelFor(inputs["runs"], parallelism=steps.kubernetes.parallelism) as run:
        trained, scored = steps.student_side(inputs, teacher, method=run.method, seed=run.seed)
    steps.compare(
        settings=inputs["compare"],
        tracking=inputs["tracking"],
        students=dsl.Collected(trained.outputs["model"]),
        benchmarks=dsl.Collected(scored.outputs["results"]),
        teacher=teacher["benchmark"].outputs["results"],
    )
