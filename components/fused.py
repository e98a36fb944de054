"""Components that do in one pod what several others do: each pod costs a driver, a schedule and an image start.

Their artifacts and fingerprints are those of the steps that they join.
"""

from typing import NamedTuple

from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output


def prepare_teacher(
    data: dict,
    source: str,
    settings: dict,
    weights: str,
    store: str,
    shards: Output[Dataset],
    model: Output[Model],
) -> None:
    """Pack image-caption pairs into checked shards, then make the teacher ready.

    Args:
        data: section `data` of params.yaml.
        source: fingerprint of what lies there, so that new data is never taken for old.
        settings: section `teacher` of params.yaml.
        weights: fingerprint of the teacher's weights, so that new ones are never taken for old.
        store: s3:// prefix where the shards stay; empty: in the artifact.

    Returns:
        shards: shards with their index, rejected.jsonl and manifest; with a store, a pointer to them.
        model: the teacher's folder.
    """
    from cliprd.kubeflow import component

    component.run("prepare", {"data": data}, {}, shards, store=store, content=source, keep=bool(store))
    component.run("teacher", {"teacher": settings}, {"shards": shards}, model, store=store, content=weights)


def distill_benchmark(
    settings: dict,
    student: dict,
    augmentation: dict,
    evaluation: dict,
    tracking: dict,
    method: str,
    seed: int,
    tasks: str,
    store: str,
    shards: Input[Dataset],
    cache: Input[Dataset],
    reference: Input[Dataset],
    model: Output[Model],
    training: Output[Metrics],
    results: Output[Dataset],
    scores: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> NamedTuple("Outputs", [("student", str), ("benchmark", str)]):  # type: ignore[valid-type]
    """Train a student with one method and seed, then evaluate it zero-shot.

    Args:
        settings: section `distill` of params.yaml; its method and seed are replaced by the inputs of that name.
        student: section `student` of params.yaml: the architecture.
        augmentation: section `augmentation` of params.yaml, as the cache was made with.
        evaluation: section `benchmark` of params.yaml.
        tracking: section `tracking` of params.yaml: the MLflow server, or an empty uri for none.
        method: baseline, clip_kd, vrd, xrd or clip_rd, with -raw or -exp for the scale mode.
        seed: of initialisation and order.
        tasks: fingerprint of the tasks, so that new ones are never taken for old.
        store: s3:// prefix to work in: checkpoints outlive the pod; or empty.
        shards: training pairs.
        cache: the teacher's embeddings of them.
        reference: the teacher's results.

    Returns:
        student: the student's folder in the store, or empty.
        benchmark: the results' folder in the store, or empty.
        model: the student: a folder that open_clip loads, with ONNX of both towers and the loss history.
        training: the last values of every loss term.
        results: scores with intervals, outcomes and embeddings.
        scores: every score in percent.
        confusion: confusion matrix of the first classification task of at most 50 classes.
    """
    from cliprd.kubeflow import component

    sections = {"student": student, "augmentation": augmentation, "tracking": tracking}
    sections["distill"] = {**settings, "method": method, "seed": seed}
    trained = component.distill(sections, shards, cache, model, training, store=store)
    sections, inputs = {"benchmark": evaluation, "tracking": tracking}, {"model": model, "reference": reference}
    scored = component.benchmark(sections, inputs, results, scores, confusion, store=store, content=tasks)
    return trained, scored


def benchmark_report(
    settings: dict,
    comparing: dict,
    tracking: dict,
    tasks: str,
    store: str,
    model: Input[Model],
    reference: Input[Dataset],
    results: Output[Dataset],
    scores: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    comparison: Output[Dataset],
    page: Output[HTML],
    table: Output[Markdown],
    means: Output[Metrics],
) -> None:
    """Evaluate a student zero-shot, and show it beside its teacher.

    Args:
        settings: section `benchmark` of params.yaml.
        comparing: section `compare` of params.yaml; its reference is the student itself.
        tracking: section `tracking` of params.yaml: where the student's MLflow run gets its scores.
        tasks: fingerprint of the tasks, so that new ones are never taken for old.
        store: s3:// prefix to work in, or empty.
        model: the student.
        reference: the teacher's results.

    Returns:
        results: scores with intervals, outcomes and embeddings.
        scores: every score in percent.
        confusion: confusion matrix of the first classification task of at most 50 classes.
        comparison: comparison.json, comparison.md and index.html.
        page: the report page.
        table: teacher and student.
        means: mean scores in percent.
    """
    from cliprd.kubeflow import component

    sections, inputs = {"benchmark": settings, "tracking": tracking}, {"model": model, "reference": reference}
    component.benchmark(sections, inputs, results, scores, confusion, store=store, content=tasks)
    sections = {"compare": {**comparing, "reference": model.metadata["method"]}, "tracking": tracking}
    component.compare(sections, [model.path], [results.path], reference, comparison, page, table, means)
