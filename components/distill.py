"""Components `distill` and `distill_nodes`."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output


def distill(
    settings: dict,
    student: dict,
    augmentation: dict,
    tracking: dict,
    method: str,
    seed: int,
    store: str,
    shards: Input[Dataset],
    cache: Input[Dataset],
    model: Output[Model],
    training: Output[Metrics],
) -> str:
    """Train a student with one method and seed from shards and teacher cache.

    Args:
        settings: section `distill` of params.yaml; its method and seed are replaced by the two inputs below.
        student: section `student` of params.yaml: the architecture.
        augmentation: section `augmentation` of params.yaml, as the cache was made with.
        tracking: section `tracking` of params.yaml: the MLflow server, or an empty uri for none.
        method: baseline, clip_kd, vrd, xrd or clip_rd, with -raw or -exp for the scale mode.
        seed: of initialisation and order.
        store: s3:// prefix to work in: checkpoints outlive the pod; or empty.
        shards: training pairs.
        cache: the teacher's embeddings of them.

    Returns:
        Output: the student's folder in the store, or empty.
        model: the student: a folder that open_clip loads, with ONNX of both towers and the loss history.
        training: the last values of every loss term.
    """
    from cliprd.kubeflow import component

    sections = {"student": student, "augmentation": augmentation, "tracking": tracking}
    sections["distill"] = {**settings, "method": method, "seed": seed}
    return component.distill(sections, shards, cache, model, training, store=store)


def distill_nodes(
    settings: dict,
    student: dict,
    augmentation: dict,
    tracking: dict,
    kubernetes: dict,
    image: str,
    method: str,
    seed: int,
    store: str,
    shards: Input[Dataset],
    cache: Input[Dataset],
    model: Output[Model],
    training: Output[Metrics],
) -> str:
    """Train a student on many nodes: submit a job to Kubeflow's Trainer, follow it, and end with its result.

    Args:
        settings: section `distill` of params.yaml; its method and seed are replaced by the two inputs below.
        student: section `student` of params.yaml: the architecture.
        augmentation: section `augmentation` of params.yaml, as the cache was made with.
        tracking: section `tracking` of params.yaml: the MLflow server, or an empty uri for none.
        kubernetes: section `kubernetes` of params.yaml: nodes, their engine, and what each asks for.
        image: of the nodes.
        method: baseline, clip_kd, vrd, xrd or clip_rd, with -raw or -exp for the scale mode.
        seed: of initialisation and order.
        store: s3:// prefix to work in: the nodes meet there.
        shards: training pairs.
        cache: the teacher's embeddings of them.

    Returns:
        Output: the student's folder in the store, or empty.
        model: the student: a folder that open_clip loads, with ONNX of both towers and the loss history.
        training: the last values of every loss term.
    """
    from cliprd.kubeflow import component

    sections = {"student": student, "augmentation": augmentation, "tracking": tracking, "kubernetes": kubernetes}
    sections["distill"] = {**settings, "method": method, "seed": seed}
    return component.distill(sections, shards, cache, model, training, store=store, image=image)
