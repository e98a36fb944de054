"""Files that a cache of other shards has left: which may stay when shards come or go, and which are to be looked at.

A file's images depend on its shard alone. The rows of its captions depend on the shards before it as well: a caption is
embedded where it comes first, together with others that are new there. So behind the first shard that is not where it
was, a file stays as it is only if the same captions are new in it, and the others have the rows that they have by now
(`build` looks); else its captions are embedded again. What comes out is what a build from nothing gives, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliprd import files
from cliprd.artifact import manifest
from cliprd.data.shards import ShardSet
from cliprd.reading import read_json
from cliprd.teacher_cache.format import file_name

ORDER = f"{manifest.VOLATILE_DIR}/order.json"  # sha256 of the shards, as they follow each other in this cache
DOUBTFUL = ".doubtful.json"  # names of files that came from a cache of other shards; until this one is finished


def keep(folder: Path, shards: ShardSet) -> Iterator[str]:
    """Names in `folder` that are worth keeping for a cache of `shards`."""
    before = _read(folder / ORDER)
    doubtful = set(_read(folder / DOUBTFUL))
    here = True
    for number, shard in enumerate(shards.shards):
        here = here and before[number : number + 1] == [shard.sha256]
        name = file_name(shard)
        if (folder / name).is_file():
            yield name
            if not here:
                doubtful.add(name)
    files.write_json(folder / DOUBTFUL, sorted(doubtful))
    yield DOUBTFUL


def doubtful_files(folder: Path) -> frozenset[str]:
    """Names of the files whose captions have to be looked at."""
    return frozenset(_read(folder / DOUBTFUL))


def note_order(folder: Path, shards: ShardSet) -> None:
    """For a later cache of other shards in the same folder."""
    files.write_json(folder / ORDER, [shard.sha256 for shard in shards.shards])


def settled(folder: Path) -> None:
    """Every file is this cache's own."""
    (folder / DOUBTFUL).unlink(missing_ok=True)


def _read(path: Path) -> list[Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
