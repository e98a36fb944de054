"""Component `cache`."""

from kfp.dsl import Dataset, Input, Model, Output


def cache(
    settings: dict, augmentation: dict, shards: Input[Dataset], teacher: Input[Model], embeddings: Output[Dataset]
) -> None:
    """Embed every crop and caption with the teacher, once.

    Args:
        settings: section `cache` of params.yaml.
        augmentation: section `augmentation` of params.yaml: which crops teacher and student see.
        shards: pairs to embed.
        teacher: the model that embeds them.

    Returns:
        embeddings: one safetensors file a shard; the manifest carries the cache's fingerprint.
    """
    from cliprd import component

    sections = {"cache": settings, "augmentation": augmentation}
    made = component.run("cache", sections, {"shards": shards.path, "teacher": teacher.path}, embeddings.path)
    embeddings.metadata.update(component.metadata(made))
