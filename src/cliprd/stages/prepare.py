"""`prepare`: pack image-caption pairs into shards known to be whole; set the bad ones aside with a reason."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cliprd import manifest, progress
from cliprd.data import sources
from cliprd.data.packing import Rejection, pack
from cliprd.data.parallel import ordered_map
from cliprd.data.shards import Sample, Shard, read_shard, write_index, write_shard
from cliprd.errors import InputError
from cliprd.manifest import Manifest
from cliprd.params import Data, Params
from cliprd.storage import Location
from cliprd.workspace import Workspace

REJECTED = "rejected.jsonl"
PROGRESS = ".progress"


@dataclass
class _Done:
    """What has been packed so far: the state that a resumed run starts from.

    Attributes:
        records: raw records that are behind us, good and bad.
        shards: shards moved into place.
        rejected: records set aside.
        seen: keys of samples kept.
        captions: captions kept.
    """

    records: int = 0
    shards: list[Shard] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    captions: int = 0


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write `00000.tar …`, `index.json`, `rejected.jsonl`.

    A key is unique in the whole set, as img2dataset's are; of several samples with the same key, in one tar or in
    two, the first is kept and the others are set aside as `duplicate_key`.

    Args:
        params: `data` is used.
        inputs: none; `params.data.path` names the source.
        output: folder to write. Shards that an interrupted run of the same work had finished are kept, and their
            records are not decoded again.

    Raises:
        InputError: the source is missing or damaged, no sample is left, or too many were set aside.
    """
    data = params.data
    identity = {"source": sources.fingerprint(data)}
    with Workspace(output, stage="prepare", params=data.model_dump(mode="json"), inputs=identity) as work:
        if work.finished:
            return work.finished
        folder = work.path
        done = _resume(folder)
        _pack_rest(data, folder, done)
        _write_rejected(folder / REJECTED, done.rejected)
        _judge(data, len(done.seen), done.rejected, folder / REJECTED)
        write_index(folder, done.shards)
        written = work.finish(
            facts={
                "samples": len(done.seen),
                "captions": done.captions,
                "shards": len(done.shards),
                "rejected": len(done.rejected),
                "reasons": dict(sorted(Counter(entry.reason for entry in done.rejected).items())),
            }
        )
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)
        return written


def _pack_rest(data: Data, output: Path, done: _Done) -> None:
    samples: list[Sample] = []
    recorded = len(done.rejected)
    remaining = itertools.islice(sources.records(data), done.records, None)
    packed = ordered_map(lambda raw: (raw.source, pack(raw, data)), remaining)
    bar = progress.bar(packed, desc="prepare", unit="img", initial=done.records)
    for source, item in bar:
        done.records += 1
        if isinstance(item, Sample) and item.key in done.seen:
            item = Rejection(source, item.key, "duplicate_key", "the first sample with this key is kept")
        if isinstance(item, Rejection):
            done.rejected.append(item)
            bar.set_postfix(shards=len(done.shards), rejected=len(done.rejected), refresh=False)
            continue
        done.seen.add(item.key)
        samples.append(item)
        if len(samples) == data.samples_per_shard:
            recorded = _close_shard(output, done, samples, recorded)
            samples = []
    if samples:
        _close_shard(output, done, samples, recorded)


def _close_shard(output: Path, done: _Done, samples: list[Sample], recorded: int) -> int:
    """Write a shard, then the note that lets a later run begin behind it. Returns how many rejections are noted."""
    name = f"{len(done.shards):05d}.tar"
    write_shard(output / name, samples)
    shard = Shard(name, len(samples), (output / name).stat().st_size, manifest.sha256_file(output / name))
    done.shards.append(shard)
    done.captions += sum(len(sample.captions) for sample in samples)
    note = {
        "shard": asdict(shard),
        "records": done.records,
        "captions": done.captions,
        "rejected": [entry.to_dict() for entry in done.rejected[recorded:]],
    }
    manifest.write_json(output / PROGRESS / f"{name}.json", note)
    return len(done.rejected)


def _resume(output: Path) -> _Done:
    """The state after the last shard that is whole and noted, all before it being so too."""
    done = _Done()
    for number in itertools.count():
        name = f"{number:05d}.tar"
        try:
            note = json.loads((output / PROGRESS / f"{name}.json").read_text(encoding="utf-8"))
            shard = Shard(**note["shard"])
            whole = manifest.sha256_file(output / name) == shard.sha256
        except (OSError, ValueError, TypeError, KeyError):
            return done
        if not whole:
            return done
        done.shards.append(shard)
        done.records, done.captions = note["records"], note["captions"]
        done.rejected += [Rejection(**entry) for entry in note["rejected"]]
        done.seen.update(sample.key for sample in read_shard(output / name))
    raise AssertionError  # unreachable


def _write_rejected(path: Path, rejected: list[Rejection]) -> None:
    with manifest.atomic_write(path, "w") as file:
        file.writelines(json.dumps(entry.to_dict(), sort_keys=True, ensure_ascii=False) + "\n" for entry in rejected)


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
