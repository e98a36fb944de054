"""Pipeline `distill`: plan → prepare → teacher → cache → distill → benchmark → report."""

from typing import Any

from kfp import dsl

from cliprd.params import Params
from pipelines.steps import Steps, defaults

NAME = "cliprd-distill"


def build(params: Params, image: str) -> Any:
    """The pipeline; `params` become the defaults of its inputs, a section each."""
    default = defaults(params)
    steps = Steps(image, params.kubernetes)

    @dsl.pipeline(name=NAME, description="Distil one student from a teacher and benchmark both.")
    def pipeline(
        method: str = "clip_rd-exp",
        seed: int = 0,
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
        """Distil one student from a teacher and benchmark both.

        Args:
            method: baseline, clip_kd, vrd, xrd or clip_rd, with -raw or -exp for the scale mode.
            seed: of the training.
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
        made = steps.teacher_side(sections, store=store, cache_parts=cache_parts, method=method, seed=seed)
        trained, scored = steps.student_side(sections, made, store=store, method=method, seed=seed)
        steps.report(
            settings=compare,
            tracking=tracking,
            student=trained.outputs["model"],
            benchmark=scored.outputs["results"],
            teacher=made["benchmark"].outputs["results"],
        )

    return pipeline
