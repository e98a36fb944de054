"""Pipeline `retrain`: distil a student, hold it against the champion, and promote it if it is significantly better."""

from typing import Any

from kfp import dsl

from cliprd.params import Params
from pipelines.steps import Steps, defaults

NAME = "cliprd-retrain"


def build(params: Params, image: str) -> Any:
    """The pipeline; `params` become the defaults of its inputs, a section each."""
    default = defaults(params)
    steps = Steps(image, params.kubernetes)

    @dsl.pipeline(name=NAME, description="Distil a student and promote it if it is better than the champion.")
    def pipeline(
        champion: str = params.promote.champion,
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
        promote: dict = default["promote"],
        tracking: dict = default["tracking"],
        store: str = params.kubernetes.store,
        cache_parts: int = params.kubernetes.cache_parts,
        publish: bool = True,
    ) -> None:
        """Distil a student and promote it if it is better than the champion.

        Args:
            champion: models:/<name> in MLflow's registry, or s3:// prefix of the champion.
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
            promote: section of params.yaml.
            tracking: section of params.yaml.
            store: s3:// prefix for shards, teacher cache and checkpoints; empty for Kubeflow's artifacts only.
            cache_parts: pods that the teacher cache is embedded in.
            publish: false: train and gate only.
        """
        sections = {
            "data": data, "teacher": teacher, "augmentation": augmentation, "cache": cache, "student": student,
            "distill": distill, "benchmark": benchmark, "compare": compare, "tracking": tracking,
        }  # fmt: skip
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        with dsl.ExitHandler(steps.record(tracking=tracking, champion=champion, run=run)):
            made = steps.teacher_side(
                sections,
                store=store,
                cache_parts=cache_parts,
                method=method,
                seed=seed,
                promote=promote,
                champion=champion,
            )
            trained, scored = steps.student_side(sections, made, store=store, method=method, seed=seed)
            decided = steps.gate(
                settings=promote,
                compare=compare,
                tracking=tracking,
                champion=champion,
                run=run,
                publish=publish,
                results=scored.outputs["results"],
            )
            candidate = {
                "settings": promote, "tracking": tracking, "champion": champion, "run": run,
                "model": trained.outputs["model"], "results": scored.outputs["results"],
            }  # fmt: skip
            with dsl.If(publish == True):  # noqa: E712 (an expression of the pipeline)
                with dsl.If(decided.outputs["Output"] == True):  # noqa: E712
                    steps.promote(**candidate, decision=decided.outputs["decision"])
                with dsl.If(decided.outputs["Output"] == False):  # noqa: E712
                    steps.refuse(**candidate, decision=decided.outputs["decision"])

    return pipeline
