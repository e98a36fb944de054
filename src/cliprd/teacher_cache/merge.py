"""Parts of a cache, built anywhere, become the whole one: nothing may be missing, and nothing made differently."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact.manifest import Manifest
from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.storage import Location
from cliprd.teacher_cache.format import file_name, read_text

OF_A_PART = ("shards", "samples", "captions")  # facts that differ from part to part
_REMEDY = "Run `cliprd cache --part` of it, with the parameters and inputs of the others."


def check_parts(shards: ShardSet, parts: Mapping[Location, Manifest]) -> None:
    """Refuse parts that do not make the whole cache of `shards`.

    Args:
        parts: folder → its checked manifest, at least one.

    Raises:
        InputError: a part was made in another way or of other shards, or shards are in no part.
    """
    reference, first = next(iter(parts.items()))
    if first.inputs["shards"] != shards.fingerprint:
        raise InputError(f"{reference} embeds other shards than {shards.folder} holds.", _REMEDY)
    expected = _making(first)
    for folder, found in parts.items():
        here = _making(found)
        for name in {**expected, **here}:
            if here.get(name) != expected.get(name):
                values = " against ".join(json.dumps(side.get(name))[:80] for side in (here, expected))
                raise InputError(f"{folder} was made with another {name} than {reference}: {values}.", _REMEDY)
    held = {name for found in parts.values() for name in found.facts["shards"]}
    if missing := [shard.name for shard in shards.shards if shard.name not in held]:
        named = ", ".join(missing[:3]) + ("…" if len(missing) > 3 else "")
        raise InputError(f"{len(missing)} shards are in no part: {named}.", _REMEDY)


def merge(
    shards: ShardSet,
    parts: Mapping[Location, Manifest],
    folder: Path,
    commit: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Bring the files of checked parts into `folder`, linked where the disk can do that, else copied.

    Args:
        commit: called with the name of each file that is there.

    Returns:
        The facts for the manifest, those of a cache built in one piece.
    """
    holder = {name: part for part, found in parts.items() for name in found.facts["shards"]}
    captions = 0
    for shard in shards.shards:
        name = file_name(shard)
        part = holder[shard.name]
        entry = parts[part].files[name]
        with storage.local_file(part, name, size=entry["size"], sha256=entry["sha256"]) as path:
            _link(path, folder / name)
        commit(name)
        captions += len(read_text(folder / name))
    facts = {name: value for name, value in next(iter(parts.values())).facts.items() if name not in OF_A_PART}
    of_all = {shard.name: shard.sha256 for shard in shards.shards}
    return {**facts, "shards": of_all, "samples": shards.samples, "captions": captions}


def _making(part: Manifest) -> dict[str, Any]:
    """All that parts have to have in common."""
    return {
        **{f"parameter {name}": value for name, value in part.params.items() if name != "part"},
        **{f"input {name}": value for name, value in part.inputs.items()},
        **{name: value for name, value in part.facts.items() if name not in OF_A_PART},
        "code": part.code,
    }


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
