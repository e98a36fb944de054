"""Pipeline `ablation`: one teacher side, a student for every run, all of them in one comparison."""

from typing import Any

from kfp import dsl

from cliprd.params import Params
from pipelines.steps import Steps, defaults

NAME = "cliprd-ablation"


def build(params: Params, image: str) -> Any:
    """The pipeline; `ablation.methods` × `ablation.seeds` is the default of its input `runs`."""
    default = defaults(params)
    grid = [{"method": method, "seed": seed} for method in params.ablation.methods for seed in params.ablation.seeds]
    steps = Steps(image, params.kubernetes)

    @dsl.pipeline(name=NAME, description="Distil a student for every method and seed, and compare them.")
    def pipeline(
        runs: list = grid,
        data: dict = default["data"],
        teacher: dict = default["teacher"],
        augmentation: dict = default["augmentation"],
        cache: dict = default["cache"],
        student: dict = default["student"],
        distill: dict = default["distill"],
        benchmark: dict = default["benchmark"],
        compare: dict = default["compare"],
        tracking: dict = default["tracking"],
        store: str = params.kubernetes.store,
        cache_parts: int = params.kubernetes.cache_parts,
    ) -> None:
        """Distil a student for every method and seed, and compare them.

        Args:
            runs: every method with every seed, each as {"method": ..., "seed": ...}.
            data: section of params.yaml.
            teacher: section of params.yaml.
            augmentation: section of params.yaml.
            cache: section of params.yaml.
            student: section of params.yaml.
            distill: section of params.yaml.
            benchmark: section of params.yaml.
            compare: section of params.yaml.
            tracking: section of params.yaml.
            store: s3:// prefix for shards, teacher cache and checkpoints; empty for Kubeflow's artifacts only.
            cache_parts: pods that the teacher cache is embedded in.
        """
        sections = {
            "data": data, "teacher": teacher, "augmentation": augmentation, "cache": cache, "student": student,
            "distill": distill, "benchmark": benchmark, "compare": compare, "tracking": tracking,
        }  # fmt: skip
        made = steps.teacher_side(sections, store=store, cache_parts=cache_parts, runs=runs)
        with dsl.ParallelFor(runs, parallelism=params.kubernetes.parallelism) as run:
            trained, scored = steps.student_side(sections, made, store=store, method=run.method, seed=run.seed)
        steps.compare(
            settings=compare,
            tracking=tracking,
            students=dsl.Collected(trained.outputs["model"]),
            benchmarks=dsl.Collected(scored.outputs["results"]),
            teacher=made["benchmark"].outputs["results"],
        )

    return pipeline
