"""Components `compare`, `compare_stored` and `report`."""

from typing import List  # noqa: UP035 (KFP knows lists of artifacts by this name only)

from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output


def compare(
    settings: dict,
    tracking: dict,
    students: Input[List[Model]],  # noqa: UP006
    benchmarks: Input[List[Dataset]],  # noqa: UP006
    teacher: Input[Dataset],
    comparison: Output[Dataset],
    page: Output[HTML],
    table: Output[Markdown],
    scores: Output[Metrics],
) -> None:
    """Compare methods and seeds over all tasks, and write the report.

    Args:
        settings: section `compare` of params.yaml.
        tracking: section `tracking` of params.yaml.
        students: the students.
        benchmarks: their results.
        teacher: the teacher's results.

    Returns:
        comparison: comparison.json, comparison.md and index.html.
        page: the report page.
        table: the comparison's table.
        scores: mean score of every method in percent.
    """
    from cliprd.kubeflow import component

    sections = {"compare": settings, "tracking": tracking}
    folders = [student.path for student in students], [result.path for result in benchmarks]
    component.compare(sections, *folders, teacher, comparison, page, table, scores)


def compare_stored(
    settings: dict,
    tracking: dict,
    students: List[str],  # noqa: UP006
    benchmarks: List[str],  # noqa: UP006
    teacher: Input[Dataset],
    comparison: Output[Dataset],
    page: Output[HTML],
    table: Output[Markdown],
    scores: Output[Metrics],
) -> None:
    """Compare methods and seeds as `compare` does, of any number of trainings, whose folders lie in the store.

    Args:
        settings: section `compare` of params.yaml.
        tracking: section `tracking` of params.yaml.
        students: the students' folders in the store.
        benchmarks: their results' folders in the store.
        teacher: the teacher's results.

    Returns:
        comparison: comparison.json, comparison.md and index.html.
        page: the report page.
        table: the comparison's table.
        scores: mean score of every method in percent.
    """
    from cliprd.kubeflow import component

    sections = {"compare": settings, "tracking": tracking}
    component.compare(sections, students, benchmarks, teacher, comparison, page, table, scores)


def report(
    settings: dict,
    tracking: dict,
    student: Input[Model],
    benchmark: Input[Dataset],
    teacher: Input[Dataset],
    comparison: Output[Dataset],
    page: Output[HTML],
    table: Output[Markdown],
    scores: Output[Metrics],
) -> None:
    """Show one student beside its teacher.

    Args:
        settings: section `compare` of params.yaml; its reference is the student itself.
        tracking: section `tracking` of params.yaml.
        student: the student.
        benchmark: its results.
        teacher: the teacher's results.

    Returns:
        comparison: comparison.json, comparison.md and index.html.
        page: the report page.
        table: teacher and student.
        scores: mean scores in percent.
    """
    from cliprd.kubeflow import component

    sections = {"compare": {**settings, "reference": student.metadata["method"]}, "tracking": tracking}
    component.compare(sections, [student.path], [benchmark.path], teacher, comparison, page, table, scores)
