"""Pipeline `ablation`: one teacher side, a student for every run, all of them in one comparison."""

from typing import Any

from kfp import dsl

from cliprd.params import Params
from pipelines.builder import build_pipeline
from pipelines.steps import Inputs, Steps

DESCRIPTION = "Distil a student for every method and seed, and compare them."


def build(params: Params, image: str) -> Any:
    """The pipeline; `ablation.methods` × `ablation.seeds` is the default of its input `runs`."""
    grid = [{"method": method, "seed": seed} for method in params.ablation.methods for seed in params.ablation.seeds]
    return build_pipeline("ablation", DESCRIPTION, _dag, params, image, runs=grid)


def _dag(steps: Steps, inputs: Inputs) -> None:
    teacher = steps.teacher_side(inputs, many=True)
    with dsl.ParallelFor(inputs["runs"], parallelism=steps.kubernetes.parallelism) as run:
        made = steps.student_side(inputs, teacher, method=run.method, seed=run.seed)
    # Artifacts ride on the command line of the step that collects them, which Linux limits; addresses are short.
    compare, students, benchmarks = (
        (steps.compare_stored, made.student, made.benchmark)
        if steps.stored
        else (steps.compare, made.model, made.results)
    )
    compare(
        settings=inputs["compare"],
        tracking=inputs["tracking"],
        students=dsl.Collected(students),
        benchmarks=dsl.Collected(benchmarks),
        teacher=teacher.scores,
    )
