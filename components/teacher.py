"""Component `teacher`."""

from kfp.dsl import Dataset, Input, Model, Output


def teacher(settings: dict, weights: str, store: str, shards: Input[Dataset], model: Output[Model]) -> None:
    """Make the teacher ready: an open_clip model by name or file, or the demo's aligned one, trained here.

    Args:
        settings: section `teacher` of params.yaml.
        weights: fingerprint of its weights, so that new ones are never taken for old.
        store: s3:// prefix to work in, or empty.
        shards: pairs on which the aligned teacher is trained.

    Returns:
        model: the teacher's folder.
    """
    from cliprd.kubeflow import component

    component.run("teacher", {"teacher": settings}, {"shards": shards}, model, store=store, content=weights)
