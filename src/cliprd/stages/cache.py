"""`cache`: the teacher's embeddings of all crops and captions, one file a shard; whole, or a part for `merge`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cliprd import lineage, teacher_cache
from cliprd.artifact import identity, manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.data.shards import ShardSet
from cliprd.errors import ParamsError
from cliprd.models.load import load_encoder
from cliprd.models.plugin import code_in
from cliprd.params import Params
from cliprd.storage import Location

PART_STAGE = "cache-part"


def run(params: Params, inputs: Mapping[str, Location], output: Location, *, part: str | None = None) -> Manifest:
    """Write `00000.safetensors …`; the manifest's facts are the cache's fingerprint.

    Args:
        params: `cache` and `augmentation` are used.
        inputs: `shards` (folder of `prepare`) and `teacher` (folder of `teacher`).
        output: folder to write. Files that an interrupted run of the same work had finished are kept; so are those of
            an earlier cache of other shards, as far as they are the same (not in S3).
        part: `2/8` embeds the third of eight runs of shards, on whatever machine; stage `merge` joins all of them.
            A caption that occurs in two parts is embedded in each.

    Raises:
        InputError: shards or teacher are unfinished or damaged, or the teacher's embeddings are not finite.
        ParamsError: there is no such part.
    """
    shards = ShardSet.open(inputs["shards"])
    teacher = fetch_folder(inputs["teacher"])
    made_with = manifest.verify(teacher)
    fingerprints = {"shards": shards.fingerprint, "teacher": made_with.fingerprint}
    sections = params.model_dump(mode="json", include={"cache", "augmentation"})
    code = ("cliprd.stages.cache", *code_in(made_with.stage, made_with.params))
    stage = "cache"
    if part is not None:
        shards, stage, sections = _part(shards, part), PART_STAGE, {**sections, "part": part}
    with Workspace(
        output,
        stage=stage,
        code=code,
        params=sections,
        inputs=fingerprints,
        way={"code": identity.digest(*code), "params": sections},
        keep=lambda folder: teacher_cache.keep(folder, shards),
    ) as work:
        if work.finished:
            return work.finished
        encoder = load_encoder(teacher, params)
        facts = teacher_cache.build(shards, encoder, params, work.path, commit=work.commit)
        return work.finish(facts={**facts, "made_with": lineage.of_teacher(made_with)})


def _part(shards: ShardSet, part: str) -> ShardSet:
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    number, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not number < parts <= len(shards.shards):
        raise ParamsError(
            f"part '{part}' of {len(shards.shards)} shards: there is no such part.",
            "Parts are 0/N to N-1/N, N at most the number of shards.",
        )
    return shards.part(number, parts)
