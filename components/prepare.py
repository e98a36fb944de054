"""Component `prepare`."""

from kfp.dsl import Dataset, Output


def prepare(data: dict, shards: Output[Dataset]) -> None:
    """Pack image-caption pairs into checked WebDataset shards; bad samples are set aside with their reason.

    Args:
        data: section `data` of params.yaml: kind and path (local or s3://) of the source, and how to pack it.

    Returns:
        shards: shards with their index, rejected.jsonl and manifest.
    """
    from cliprd import component

    made = component.run("prepare", {"data": data}, {}, shards.path)
    shards.metadata.update(component.metadata(made))
