"""`merge`: the whole teacher cache, of parts that `cache` embedded on any number of machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cliprd import storage, teacher_cache
from cliprd.artifact import manifest
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.pointer import resolve
from cliprd.artifact.workspace import Workspace
from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.stages.cache import PART_STAGE
from cliprd.storage import Location


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write the cache that stage `cache` writes in one piece: images' rows the same, captions' up to rounding.

    Args:
        params: not used: the parts say how they were made, and agree.
        inputs: `shards` (folder of `prepare`) and `parts` (folder of folders of `cache` with a part).
        output: folder to write.

    Raises:
        InputError: a part is unfinished, damaged or made in another way, or shards are in no part.
    """
    shards = ShardSet.open(inputs["shards"])
    folders = [resolve(folder) for folder in _folders(storage.parse(inputs["parts"]))]
    if not folders:
        raise InputError(f"{inputs['parts']} holds no part.", "Run `cliprd cache --part 0/N …` to N-1/N first.")
    parts = {folder: manifest.verify(folder, stage=PART_STAGE) for folder in folders}
    teacher_cache.check_parts(shards, parts)
    first = parts[folders[0]]
    sections = {name: value for name, value in first.params.items() if name != "part"}
    with Workspace(output, stage="cache", code="cliprd.stages.merge", params=sections, inputs=first.inputs) as work:
        return work.finished or work.finish(facts=teacher_cache.merge(shards, parts, work.path, work.commit))


def _folders(place: Location) -> list[Location]:
    if isinstance(place, Path):
        return [path for path in sorted(place.iterdir()) if path.is_dir()]
    names = {name.rsplit("/", 1)[0] for name in storage.list_folder(place) if name.endswith(f"/{manifest.NAME}")}
    return [storage.join(place, name) for name in sorted(names)]
