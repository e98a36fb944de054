"""`prepare`: pack image-caption pairs into shards known to be whole; set the bad ones aside with a reason.

Each source (a raw tar, say) has shards of its own, named after it: one that comes or goes leaves those of the others as
they are, and what an earlier run has made of an unchanged source is kept.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from cliprd import files, progress
from cliprd.artifact import identity, manifest
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.data import sources
from cliprd.data.keys import KeySet
from cliprd.data.naming import Naming, Refusal, mark
from cliprd.data.packing import Rejection, pack
from cliprd.data.raw import APART
from cliprd.data.shards import INDEX, Sample, Shard, read_keys, read_shard, write_index, write_shard
from cliprd.data.sources import Source
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.names import visible
from cliprd.parallel import ordered_map
from cliprd.params import Data, Params
from cliprd.reading import read_json
from cliprd.storage import Location

_NOTES = {
    "rows": "table rows",
    "multi_line_fields": "fields over several lines",
    "caption_lists": "cells that hold a list of captions",
    "skipped": "metadata files of macOS or Windows skipped",
}
REJECTED = "rejected.jsonl"
PROGRESS = ".progress"


@dataclass
class _Packed:
    """What has been made of one source: the state that a resumed run starts from.

    Attributes:
        records: raw records that are behind us, good and bad.
        shards: shards moved into place.
        rejected: records set aside.
        captions: captions kept.
        notes: what reading found worth counting, see `Raw`.
        whole: nothing is left to pack.
    """

    records: int = 0
    shards: list[Shard] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    captions: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    whole: bool = False

    @property
    def samples(self) -> int:
        """Samples kept: those of the shards."""
        return sum(shard.samples for shard in self.shards)


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write `SOURCE-00000.tar …`, `index.json`, `rejected.jsonl`; the manifest's facts name the sources.

    Keys are unique in the whole set, see `cliprd.data.naming`: equal keys of two sources are told apart by a mark,
    equal samples and equal keys of one source are set aside.

    Args:
        params: `data` is used.
        inputs: none; `params.data.path` names the source.
        output: folder to write. Shards that an earlier run has made from the same source in the same way are kept, and
            their records are not decoded again, whether it was interrupted or had other sources beside.

    Raises:
        InputError: the source is missing or damaged, no sample is left, or too many were set aside.
    """
    data = params.data
    found = sources.inventory(data)
    way = {"code": identity.digest("cliprd.stages.prepare"), "params": data.model_dump(mode="json", exclude={"path"})}
    with Workspace(
        output,
        stage="prepare",
        code="cliprd.stages.prepare",
        params=data.model_dump(mode="json"),
        inputs={"source": sources.combined(found)},
        way=way,
        keep=_kept,
        resume_files=[PROGRESS],
    ) as work:
        if work.finished:
            return work.finished
        folder = work.path
        packed = _pack_all(data, work, found)
        shards = [shard for part in packed for shard in part.shards]
        rejected = _with_apart([entry for part in packed for entry in part.rejected])
        kept = sum(part.samples for part in packed)
        _write_rejected(folder / REJECTED, rejected)
        _report(packed, kept, rejected)
        _judge(data, kept, rejected, folder / REJECTED)
        for stray in {path.name for path in folder.glob("*.tar")} - {shard.name for shard in shards}:
            (folder / stray).unlink()  # of a source that is gone
        write_index(folder, shards)
        return work.finish(
            facts={
                "samples": kept,
                "captions": sum(part.captions for part in packed),
                "shards": len(shards),
                "rejected": len(rejected),
                "reasons": dict(sorted(Counter(entry.reason for entry in rejected).items())),
                "sources": [_told(source, part) for source, part in zip(found, packed, strict=True)],
            }
        )


def _told(source: Source, part: _Packed) -> dict[str, Any]:
    told = {
        "name": visible(source.name),
        "place": visible(source.place),
        "fingerprint": source.fingerprint,
        "stem": source.stem,
        "samples": part.samples,
        "captions": part.captions,
        "records": part.records,
        "shards": len(part.shards),
        "rejected": len(part.rejected),
    }
    return told | ({"notes": dict(sorted(part.notes.items()))} if part.notes else {})


def _pack_all(data: Data, work: Workspace, found: list[Source]) -> list[_Packed]:
    packed: list[_Packed] = []
    kept, output = 0, work.path

    def samples(number: int) -> Iterator[Sample]:
        return (sample for shard in packed[number].shards for sample in read_shard(output / shard.name))

    with contextlib.closing(KeySet(output)) as keys, progress.bar(desc="prepare", unit="img") as bar:
        naming = Naming(keys, [mark(source.name) for source in found], samples)
        for number, source in enumerate(found):
            part = _left(output, source)
            names = (key for shard in part.shards for key in read_keys(output / shard.name))
            refused = [(entry.key, entry.reason) for entry in part.rejected]
            if not naming.fits(names, part.samples, refused, number, undisturbed=kept == number):
                keys.forget(number)
                part = _Packed()
            kept += part.whole
            bar.update(part.records)
            if not part.whole:
                _pack_rest(data, work, source, part, partial(naming.admit, source=number), bar)
            packed.append(part)
    if kept:
        print(f"cliprd: prepare: {kept} sources kept as they were, {len(found) - kept} packed", file=sys.stderr)
    return packed


def _pack_rest(
    data: Data, work: Workspace, source: Source, part: _Packed, admit: Callable[[Sample], Sample | Refusal], bar: Any
) -> None:
    samples: list[Sample] = []
    recorded = len(part.rejected)
    remaining = itertools.islice(sources.records(data, source), part.records, None)
    for raw, item in ordered_map(lambda raw: ((raw.source, raw.notes), pack(raw, data)), remaining):
        where, notes = raw
        part.records += 1
        part.notes.update(notes)
        bar.update()
        if isinstance(item, Sample):
            named = admit(item)
            item = named if isinstance(named, Sample) else Rejection(visible(where), item.key, *astuple(named))
        if isinstance(item, Rejection):
            part.rejected.append(item)
            bar.set_postfix(source=visible(source.name), rejected=len(part.rejected), refresh=False)
            continue
        samples.append(item)
        if len(samples) == data.samples_per_shard:
            recorded = _close_shard(work, source, part, samples, recorded)
            samples = []
    if samples:
        recorded = _close_shard(work, source, part, samples, recorded)
    part.whole = True
    work.commit(_note(work.path, source, part, f"{source.stem}-end", part.rejected[recorded:]))


def _shard_name(stem: str, number: int) -> str:
    return f"{stem}-{number:05d}.tar"


def _close_shard(work: Workspace, source: Source, part: _Packed, samples: list[Sample], recorded: int) -> int:
    """Write a shard, then the note that lets a later run begin behind it. Returns how many rejections are noted."""
    output = work.path
    name = _shard_name(source.stem, len(part.shards))
    write_shard(output / name, samples)
    part.shards.append(Shard(name, len(samples), (output / name).stat().st_size, files.sha256_file(output / name)))
    part.captions += sum(len(sample.captions) for sample in samples)
    work.commit(name, _note(output, source, part, name, part.rejected[recorded:]))
    return len(part.rejected)


def _note(output: Path, source: Source, part: _Packed, name: str, rejected: list[Rejection]) -> str:
    """Write the state behind a shard, or at the end of a source; `rejected` are those since the note before.

    Returns:
        The file's name in `output`.
    """
    note = {
        "source": _identity(source),
        "shards": len(part.shards),
        "shard": asdict(part.shards[-1]) if part.shards else None,
        "records": part.records,
        "captions": part.captions,
        "notes": part.notes,
        "rejected": [entry.to_dict() for entry in rejected],
        "whole": part.whole,
    }
    files.write_json(output / PROGRESS / f"{name}.json", note)
    return f"{PROGRESS}/{name}.json"


def _left(output: Path, source: Source) -> _Packed:
    """The state after the last shard of a source that is whole and noted, all before it being so too."""
    part = _Packed()
    for number in itertools.count():
        name = _shard_name(source.stem, number)
        note = _read_note(output, source, name)
        try:
            shard = Shard(**note["shard"])
            whole = files.sha256_file(output / name) == shard.sha256
        except (OSError, TypeError, KeyError):
            break
        if not whole:
            break
        part.shards.append(shard)
        _go_on(part, note)
    end = _read_note(output, source, f"{source.stem}-end")
    if end.get("whole") and end["shards"] == len(part.shards):
        _go_on(part, end)
        part.whole = True
    return part if part.records else _Packed()


def _go_on(part: _Packed, note: Mapping[str, Any]) -> None:
    part.records, part.captions, part.notes = note["records"], note["captions"], Counter(note["notes"])
    part.rejected += [Rejection(**entry) for entry in note["rejected"]]


def _identity(source: Source) -> list[str]:
    return [visible(source.name), visible(source.place), source.fingerprint]


def _read_note(output: Path, source: Source, name: str) -> dict[str, Any]:
    try:
        note = read_json(output / PROGRESS / f"{name}.json")
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("source") == _identity(source) else {}


def _kept(folder: Path) -> Iterator[str]:
    """What an earlier run has left for other work: its shards, and the notes on them, made from its last files."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, InputError):  # unfinished, or damaged
        _write_notes(folder)
    yield PROGRESS
    yield from (path.name for path in folder.glob("*.tar"))


def _write_notes(folder: Path) -> None:
    """The notes of a finished run."""
    found = manifest.read(folder, stage="prepare")
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))["shards"]
    lines = (folder / REJECTED).read_text(encoding="utf-8").split("\n")
    shards = (Shard(**entry) for entry in index)
    rejected = (Rejection(**json.loads(line)) for line in lines)
    for told in found.facts["sources"]:
        source = Source(told["place"], told["name"], told["fingerprint"], told["stem"])
        part = _Packed()
        for shard in itertools.islice(shards, told["shards"]):
            part.shards.append(shard)
            _note(folder, source, part, shard.name, [])  # without its number of records: of use together only
        part.records, part.captions, part.whole = told["records"], told["captions"], True
        part.notes = Counter(told.get("notes", {}))
        _note(folder, source, part, f"{source.stem}-end", list(itertools.islice(rejected, told["rejected"])))


def _write_rejected(path: Path, rejected: list[Rejection]) -> None:
    with atomic_write(path, "w") as file:
        file.writelines(
            visible(json.dumps(entry.to_dict(), sort_keys=True, ensure_ascii=False)) + "\n" for entry in rejected
        )


def _with_apart(rejected: list[Rejection]) -> list[Rejection]:
    """Where the files of a sample stand apart, the first of them had looked as if the others were missing."""
    apart = {entry.source: entry.detail for entry in rejected if entry.reason == APART}
    return [
        replace(entry, reason=APART, detail=f"{entry.detail}; {apart[entry.source].partition('; ')[2]}")
        if entry.source in apart and entry.reason in {"missing_image", "missing_caption"}
        else entry
        for entry in rejected
    ]


def _report(packed: list[_Packed], kept: int, rejected: list[Rejection]) -> None:
    """Say what came in and what came of it; nothing may be lost in between."""
    records = sum(part.records for part in packed)
    if records != kept + len(rejected):
        raise AssertionError(f"{records} records were read, {kept} packed and {len(rejected)} set aside")
    notes = sum((part.notes for part in packed), Counter[str]())
    counted = "".join(f", {count:,} {_NOTES[kind]}" for kind, count in sorted(notes.items()) if kind in _NOTES)
    print(
        f"cliprd: prepare: {records:,} records: {kept:,} packed, {len(rejected):,} rejected{counted}", file=sys.stderr
    )


def _judge(data: Data, kept: int, rejected: list[Rejection], where: Path) -> None:
    counts = ", ".join(f"{n} {reason}" for reason, n in Counter(entry.reason for entry in rejected).most_common())
    if not kept:
        raise InputError(f"{data.path}: no usable sample ({counts or 'the source is empty'}).", f"See {where}.")
    if len(rejected) > data.max_bad_fraction * (kept + len(rejected)):
        raise InputError(
            f"{data.path}: {len(rejected)} of {kept + len(rejected)} samples are bad ({counts}), more than "
            f"data.max_bad_fraction = {data.max_bad_fraction} allows.",
            f"{where} names each with its reason; mend the source or raise data.max_bad_fraction.",
        )
