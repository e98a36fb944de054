"""`prepare`: pack image-caption pairs into shards known to be whole; set the bad ones aside with a reason."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from cliprd import manifest, storage
from cliprd.data import sources
from cliprd.data.images import BadImage, decode, is_plain
from cliprd.data.shards import Sample, Shard, write_index, write_shard
from cliprd.data.sources import Raw
from cliprd.errors import InputError
from cliprd.manifest import Manifest
from cliprd.params import Data, Params
from cliprd.workspace import Workspace

REJECTED = "rejected.jsonl"
_EXTENSION = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def run(params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Write `00000.tar …`, `index.json`, `rejected.jsonl`.

    Args:
        params: `data` is used.
        inputs: none; `params.data.path` names the source.
        output: folder to write. Shards that an interrupted run of the same work had finished are kept.

    Raises:
        InputError: the source is missing or damaged, no sample is left, or too many were set aside.
    """
    data = params.data
    with Workspace(output, stage="prepare", params=data.model_dump(mode="json"), inputs=_identity(data)) as work:
        if work.finished:
            return work.finished
        rejected: list[dict[str, str]] = []
        shards: list[Shard] = []
        captions = 0
        with tqdm(desc="prepare", unit="img", disable=None) as bar:
            for samples in _batches(_checked(data, rejected), data.samples_per_shard):
                name = f"{len(shards):05d}.tar"
                path = output / name
                if not path.exists():  # a shard moved into place is whole, and its content is a function of the source
                    write_shard(path, samples)
                shards.append(Shard(name, len(samples), path.stat().st_size, manifest.sha256_file(path)))
                captions += sum(len(sample.captions) for sample in samples)
                bar.update(len(samples))
                bar.set_postfix(shards=len(shards), rejected=len(rejected))
        _write_rejected(output / REJECTED, rejected)
        total = sum(shard.samples for shard in shards)
        _judge(data, total, rejected, output / REJECTED)
        write_index(output, shards)
        return work.finish(
            facts={
                "samples": total,
                "captions": captions,
                "shards": len(shards),
                "rejected": len(rejected),
                "reasons": dict(sorted(Counter(entry["reason"] for entry in rejected).items())),
            }
        )


def _identity(data: Data) -> dict[str, str]:
    """Fingerprint of the source: sha256 of local tables and tars, sizes of images in a folder, names in S3."""
    files = sources.inventory(data)
    if storage.is_s3(data.path):
        return {"source": manifest.digest(files)}
    described: list[Any] = [
        [name, Path(name).stat().st_size if data.kind == "folder" else manifest.sha256_file(Path(name))]
        for name in files
    ]
    return {"source": manifest.digest(described)}


def _checked(data: Data, rejected: list[dict[str, str]]) -> Iterator[Sample]:
    seen: set[str] = set()
    for raw in sources.records(data):
        try:
            if raw.key in seen:
                raise BadImage("duplicate_key", "the first sample with this key is kept")
            sample = _sample(raw, data)
        except BadImage as bad:
            rejected.append({"source": raw.source, "key": raw.key, "reason": bad.reason, "detail": bad.detail})
            continue
        seen.add(raw.key)
        yield sample


def _sample(raw: Raw, data: Data) -> Sample:
    if raw.image is None:
        raise BadImage("missing_image")
    if raw.text is None:
        raise BadImage("missing_caption")
    try:
        text = raw.text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadImage("caption_not_utf8", str(error)) from error
    captions = tuple(dict.fromkeys(" ".join(line.split()) for line in text.splitlines() if line.strip()))
    if not captions:
        raise BadImage("empty_caption")
    image, extension = _packed(raw.image, data)
    return Sample(raw.key, image, extension, captions)


def _packed(data: bytes, params: Data) -> tuple[bytes, str]:
    """The bytes to store: as found where every decoder agrees on them, otherwise lossless PNG of the mended pixels."""
    image = decode(data, max_pixels=params.max_pixels)
    shrink = params.max_side is not None and max(image.size) > params.max_side
    if not shrink and is_plain(data, max_pixels=params.max_pixels):
        with Image.open(io.BytesIO(data)) as header:
            return data, _EXTENSION[str(header.format)]
    if shrink and params.max_side is not None:
        scale = params.max_side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue(), "png"


def _batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_rejected(path: Path, rejected: list[dict[str, str]]) -> None:
    with manifest.atomic_write(path, "w") as file:
        file.writelines(json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n" for entry in rejected)


def _judge(data: Data, kept: int, rejected: list[dict[str, str]], where: Path) -> None:
    counts = ", ".join(f"{n} {reason}" for reason, n in Counter(r["reason"] for r in rejected).most_common())
    if not kept:
        raise InputError(f"{data.path}: no usable sample ({counts or 'the source is empty'}).", f"See {where}.")
    if len(rejected) > data.max_bad_fraction * (kept + len(rejected)):
        raise InputError(
            f"{data.path}: {len(rejected)} of {kept + len(rejected)} samples are bad ({counts}), more than "
            f"data.max_bad_fraction = {data.max_bad_fraction} allows.",
            f"See {where}; mend the source or raise data.max_bad_fraction.",
        )
