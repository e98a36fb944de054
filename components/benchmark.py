"""Components `benchmark` and `benchmark_teacher`."""

from kfp.dsl import ClassificationMetrics, Dataset, Input, Metrics, Model, Output


def benchmark_teacher(
    settings: dict, tasks: str, store: str, model: Input[Model], results: Output[Dataset], scores: Output[Metrics]
) -> None:
    """Evaluate the teacher zero-shot; students' embeddings are compared with its own.

    Args:
        settings: section `benchmark` of params.yaml.
        tasks: fingerprint of the tasks, so that new ones are never taken for old.
        store: s3:// prefix to work in, or empty.
        model: the teacher.

    Returns:
        results: scores with intervals, outcomes and embeddings.
        scores: every score in percent.
    """
    from cliprd.kubeflow import component

    component.benchmark({"benchmark": settings}, {"model": model}, results, scores, store=store, content=tasks)


def benchmark(
    settings: dict,
    tracking: dict,
    tasks: str,
    store: str,
    model: Input[Model],
    reference: Input[Dataset],
    results: Output[Dataset],
    scores: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> str:
    """Evaluate a student zero-shot: classification, retrieval, and how well it keeps the teacher's geometry.

    Args:
        settings: section `benchmark` of params.yaml.
        tracking: section `tracking` of params.yaml: where the student's MLflow run gets its scores.
        tasks: fingerprint of the tasks, so that new ones are never taken for old.
        store: s3:// prefix to work in, or empty.
        model: the student.
        reference: the teacher's results.

    Returns:
        Output: the results' folder in the store, or empty.
        results: scores with intervals, outcomes and embeddings.
        scores: every score in percent.
        confusion: confusion matrix of the first classification task of at most 50 classes.
    """
    from cliprd.kubeflow import component

    sections = {"benchmark": settings, "tracking": tracking}
    inputs = {"model": model, "reference": reference}
    return component.benchmark(sections, inputs, results, scores, confusion, store=store, content=tasks)
