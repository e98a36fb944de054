"""`cache`: the teacher's embeddings of all crops and captions, one file a shard."""

from __future__ import annotations

from collections.abc import Mapping

from cliprd import manifest, storage, teacher_cache
from cliprd.data.shards import ShardSet
from cliprd.manifest import Manifest
from cliprd.models.load import load_encoder
from cliprd.params import Params
from cliprd.storage import Location
from cliprd.workspace import Workspace


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write `00000.safetensors …`; the manifest's facts are the cache's fingerprint.

    Args:
        params: `cache` and `augmentation` are used.
        inputs: `shards` (folder of `prepare`) and `teacher` (folder of `teacher`).
        output: folder to write. Files that an interrupted run of the same work had finished are kept.

    Raises:
        InputError: shards or teacher are unfinished or damaged, or the teacher's embeddings are not finite.
    """
    shards = ShardSet.open(inputs["shards"])
    teacher = storage.fetch_folder(inputs["teacher"])
    fingerprints = {"shards": shards.fingerprint, "teacher": manifest.verify(teacher).fingerprint}
    sections = params.model_dump(mode="json", include={"cache", "augmentation"})
    with Workspace(output, stage="cache", params=sections, inputs=fingerprints) as work:
        if work.finished:
            return work.finished
        encoder = load_encoder(teacher, params)
        return work.finish(facts=teacher_cache.build(shards, encoder, params, work.path))
