"""Component `plan`."""

from typing import NamedTuple

from kfp.dsl import Markdown, Output


def plan(
    data: dict,
    teacher: dict,
    augmentation: dict,
    cache: dict,
    student: dict,
    distill: dict,
    benchmark: dict,
    compare: dict,
    tracking: dict,
    store: str,
    cache_parts: int,
    text: Output[Markdown],
    runs: list = [],  # noqa: B006 (KFP's default of an input)
    method: str = "",
    seed: int = 0,
    promote: dict = {},  # noqa: B006
    champion: str = "",
    in_store: bool = False,
) -> NamedTuple("Outputs", [("source", str), ("tasks", str), ("weights", str)]):  # type: ignore[valid-type]
    """Check all parameters before any work is done, and fingerprint the data and the tasks as they are now.

    Args:
        data: section of params.yaml.
        teacher: section of params.yaml.
        augmentation: section of params.yaml.
        cache: section of params.yaml.
        student: section of params.yaml.
        distill: section of params.yaml.
        benchmark: section of params.yaml.
        compare: section of params.yaml.
        tracking: section of params.yaml.
        store: s3:// prefix of the steps' work, or empty.
        cache_parts: pods that the teacher cache is embedded in.
        runs: every training as {"method": ..., "seed": ...}; left out, the one of the next two.
        method: of the one training.
        seed: of the one training.
        promote: section of params.yaml.
        champion: models:/<name>, or the champion's folder as s3:// prefix.
        in_store: the comparison takes the trainings' folders from the store.

    Returns:
        text: shapes, parameters and cost.
        source: fingerprint of the source data.
        tasks: fingerprint of the benchmark's tasks.
        weights: fingerprint of the teacher's weights.
    """
    from cliprd.kubeflow import checks

    sections = {
        "data": data, "teacher": teacher, "augmentation": augmentation, "cache": cache, "student": student,
        "distill": distill, "benchmark": benchmark, "compare": compare, "tracking": tracking,
        "kubernetes": {"store": store, "cache_parts": cache_parts},
        "promote": {**promote, "champion": champion},
    }  # fmt: skip
    runs = runs or [{"method": method, "seed": seed}]
    return checks.check_pipeline(sections, runs, text.path, store=store, in_store=in_store)
