"""Components `cache` and `merge`."""

from typing import List  # noqa: UP035 (KFP knows lists of artifacts by this name only)

from kfp.dsl import Dataset, Input, Model, Output


def cache(
    settings: dict,
    augmentation: dict,
    store: str,
    part: str,
    shards: Input[Dataset],
    teacher: Input[Model],
    embeddings: Output[Dataset],
) -> None:
    """Embed every crop and caption of a part of the shards with the teacher, once.

    Args:
        settings: section `cache` of params.yaml.
        augmentation: section `augmentation` of params.yaml: which crops teacher and student see.
        store: s3:// prefix where the embeddings stay; empty: in the artifact.
        part: `2/8` is the third of eight runs of shards; empty: all of them.
        shards: pairs to embed.
        teacher: the model that embeds them.

    Returns:
        embeddings: one safetensors file a shard; with a store, a pointer to them.
    """
    from cliprd.kubeflow import component

    sections, inputs = {"cache": settings, "augmentation": augmentation}, {"shards": shards, "teacher": teacher}
    component.run("cache", sections, inputs, embeddings, store=store, keep=bool(store), part=part or None)


def merge(
    store: str,
    shards: Input[Dataset],
    parts: Input[List[Dataset]],  # noqa: UP006
    embeddings: Output[Dataset],
) -> None:
    """Join the parts of the teacher cache, of which none may be missing.

    Args:
        store: s3:// prefix where the embeddings stay; empty: in the artifact.
        shards: pairs that the parts embed.
        parts: all parts.

    Returns:
        embeddings: one safetensors file a shard, and the cache's fingerprint; with a store, a pointer to them.
    """
    from cliprd.kubeflow import component

    component.merge(shards, parts, embeddings, store=store)
