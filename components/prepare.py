"""Component `prepare`."""

from kfp.dsl import Dataset, Output


def prepare(data: dict, source: str, store: str, parts: int, shards: Output[Dataset]) -> list:
    """Pack image-caption pairs into checked WebDataset shards; bad samples are set aside with their reason.

    Args:
        data: section `data` of params.yaml: kind and path (local or s3://) of the source, and how to pack it.
        source: fingerprint of what lies there, so that new data is never taken for old.
        store: s3:// prefix where the shards stay; empty: in the artifact.
        parts: how many the teacher cache is to be embedded in; at most one a shard.

    Returns:
        Output: the parts, as `0/4` to `3/4`.
        shards: shards with their index, rejected.jsonl and manifest; with a store, a pointer to them.
    """
    from cliprd.kubeflow import component

    manifest = component.run("prepare", {"data": data}, {}, shards, store=store, content=source, keep=bool(store))
    count = min(parts, manifest.facts["shards"])
    return [f"{number}/{count}" for number in range(count)]
