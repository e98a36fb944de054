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
    text: Output[Markdown],
    runs: list = [],  # noqa: B006 (KFP's default of an input)
    method: str = "",
    seed: int = 0,
) -> NamedTuple("Outputs", [("source", str), ("tasks", str)]):  # type: ignore[valid-type]
    """Check all parameters before any work is done, and look at what the data and the tasks are now.

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
        runs: every training as {"method": ..., "seed": ...}; left out, the one of the next two.
        method: of the one training.
        seed: of the one training.

    Returns:
        text: shapes, parameters and cost.
        source: fingerprint of the source data.
        tasks: fingerprint of the benchmark's tasks.
    """
    from cliprd import component

    sections = {
        "data": data, "teacher": teacher, "augmentation": augmentation, "cache": cache, "student": student,
        "distill": distill, "benchmark": benchmark, "compare": compare, "tracking": tracking,
    }  # fmt: skip
    return component.plan(sections, runs or [{"method": method, "seed": seed}], text.path)
