"""Embedding the shards: decode and crop in threads, forward pass here, files written behind it.

Batches never cross shards, and captions are batched a shard at a time behind a replay of those before, so a shard's
bytes do not depend on where the build was interrupted, nor on what an earlier cache of other shards had made of it.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprd import files, progress
from cliprd.artifact import manifest
from cliprd.data.augment import crop_box, to_tensor, train_view
from cliprd.data.images import BadImage, decode
from cliprd.data.shards import Sample, Shard, ShardSet
from cliprd.errors import InputError
from cliprd.machine import cores
from cliprd.models.encoder import Encoder
from cliprd.models.linear import few_sizes
from cliprd.parallel import ordered_map
from cliprd.params import Params
from cliprd.teacher_cache import fingerprint
from cliprd.teacher_cache.captions import BUDGET, CaptionRows, digest, digest_of, replay
from cliprd.teacher_cache.format import file_name, proven, read_rows, read_text, write_rows
from cliprd.teacher_cache.reuse import doubtful_files, note_order, settled

THROUGHPUT = "throughput.json"
_CHECKED_BY_PREPARE = 2**62  # the shards hold no image that `data.max_pixels` refuses


def build(
    shards: ShardSet,
    encoder: Encoder,
    params: Params,
    folder: Path,
    *,
    caption_budget: int = BUDGET,
    commit: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Write one file a shard into `folder`; those already whole and made in the same way are kept (see `reuse`).

    Args:
        shards: to embed.
        encoder: the teacher.
        params: `cache` and `augmentation` are used.
        folder: owned by the caller. `volatile/throughput.json` tells the speed, and how many shards were embedded.
        caption_budget: bytes of memory for caption rows that may come again.
        commit: called, in a thread, with the name of each file that is finished.

    Returns:
        The facts for the manifest.

    Raises:
        InputError: a sample cannot be decoded, or the teacher gives NaN, Inf or another width.
    """
    facts = fingerprint.facts(shards, encoder, params.augmentation, params.cache.views)
    # The set as a whole is no part of a file's identity: its own shard's sha256 stands in the file.
    identity = files.digest({name: value for name, value in facts.items() if name not in ("shards", "samples")})
    return facts | {"captions": _Builder(shards, encoder, params, folder, identity, caption_budget, commit).run()}


@dataclass
class _Crops:
    """A batch on its way to the encoder: uint8 `[samples · views, S, S, 3]`, views of a sample side by side."""

    shard: Shard
    pixels: Tensor
    captions: list[tuple[str, ...]]


class _Builder:
    def __init__(
        self,
        shards: ShardSet,
        encoder: Encoder,
        params: Params,
        folder: Path,
        identity: str,
        caption_budget: int,
        commit: Callable[[str], None],
    ) -> None:
        self._commit = commit
        self._shards, self._encoder, self._folder, self._identity = shards, encoder, folder, identity
        self._views, self._batch_size = params.cache.views, params.cache.batch_size
        self._augmentation = params.augmentation
        size = encoder.image.size
        shape = (self._batch_size, 3, size, size)
        self._pixels = torch.empty(shape, device=encoder.device, memory_format=torch.channels_last)
        self._known = CaptionRows(encoder.dim, caption_budget)
        self._captions_anew = 0  # shards
        self._on_gpu = encoder.device.type == "cuda"
        self._workers = cores()
        self._croppers = ThreadPoolExecutor(self._workers, thread_name_prefix="cliprd-crop")

    def run(self) -> int:
        """Embed what is missing. Returns the number of captions in the set."""
        doubtful = doubtful_files(self._folder)
        note_order(self._folder, self._shards)
        left = {s.name: proven(self._folder / file_name(s), s, self._identity) for s in self._shards.shards}
        whole = {name: new for name, new in left.items() if new is not None}
        missing = [shard for shard in self._shards.shards if shard.name not in whole]
        finished = sum(shard.samples for shard in self._shards.shards if shard.name in whole) * self._views
        # A GPU computes while the CPU crops ahead of it. A CPU has no time to spare: one batch ahead fills what gaps
        # the forward pass leaves, more would only hold up its threads, which wait for each other at every layer.
        ahead = 4 if self._on_gpu else 2
        begun = time.perf_counter()
        behind: list[Shard] = []
        writing: Future[None] | None = None
        with (
            self._croppers,
            contextlib.closing(ordered_map(self._crop, self._batches(missing), workers=2, ahead=ahead)) as in_order,
            progress.bar(desc="cache", unit="img", total=self._shards.samples * self._views, initial=finished) as bar,
            ThreadPoolExecutor(1, thread_name_prefix="cliprd-write") as writer,
        ):
            ready = itertools.groupby(in_order, key=lambda crops: crops.shard)
            for shard in self._shards.shards:
                if shard.name in whole and file_name(shard) not in doubtful:
                    behind.append(shard)
                    continue
                self._replay(behind)
                behind = []
                images: list[Tensor] = []
                captions: list[tuple[str, ...]] = []
                if shard.name in whole:
                    captions = list(self._shards.captions(shard))
                    if self._stands(shard, captions, whole[shard.name]):
                        continue
                    rows = read_rows(self._folder / file_name(shard)).image
                    images = [torch.from_numpy(rows.reshape(-1, rows.shape[2]).copy())]
                    self._captions_anew += 1
                else:
                    for crops in next(ready)[1]:
                        images += self._embed_images(crops.pixels)
                        captions += crops.captions
                        bar.update(len(crops.pixels))
                flat = [caption for several in captions for caption in several]
                new = digest_of(self._known.new(flat))
                text = self._known.rows(flat, self._embed_texts)
                if writing is not None:
                    writing.result()  # one file behind at most: memory stays bounded, and its errors come up
                writing = writer.submit(self._write, shard, images, text, [len(several) for several in captions], new)
            if writing is not None:
                writing.result()
        seconds = time.perf_counter() - begun
        self._note(missing, seconds)
        settled(self._folder)
        return sum(len(read_text(self._folder / file_name(shard))) for shard in self._shards.shards)

    def _batches(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[Sample]]]:
        size = max(1, self._batch_size // self._views)
        for shard in shards:
            samples = self._shards.read(shard)
            while batch := list(itertools.islice(samples, size)):
                yield shard, batch

    def _crop(self, work: tuple[Shard, list[Sample]]) -> _Crops:
        """Runs in a thread, and shares its samples out to others: Pillow works without the interpreter's lock."""
        shard, samples = work
        spec = self._encoder.image
        pixels = torch.empty((len(samples), self._views, spec.size, spec.size, 3), dtype=torch.uint8)
        if self._on_gpu:
            pixels = pixels.pin_memory()
        into = pixels.numpy()
        shares = [slice(i, None, self._workers) for i in range(self._workers)]
        done = [self._croppers.submit(self._crop_into, into[share], shard, samples[share]) for share in shares]
        for future in done:
            future.result()
        return _Crops(shard, pixels.flatten(0, 1), [sample.captions for sample in samples])

    def _crop_into(self, into_BVSS3: NDArray[np.uint8], shard: Shard, samples: list[Sample]) -> None:
        for views, sample in zip(into_BVSS3, samples, strict=True):
            try:
                image = decode(sample.image, max_pixels=_CHECKED_BY_PREPARE)
            except BadImage as bad:
                raise InputError(
                    f"{self._shards.where(shard)}: sample '{sample.key}' cannot be decoded: {bad}.",
                    "Delete the shards and run `cliprd prepare` again.",
                ) from bad
            for view in range(self._views):
                box = crop_box(sample.key, view, image.width, image.height, self._augmentation)
                views[view] = train_view(image, box, self._encoder.image)

    def _embed_images(self, pixels: Tensor) -> list[Tensor]:
        """Queue the forward pass; results stay on the device, so that a GPU is never waited for between batches."""
        found = []
        for part in torch.split(pixels, self._sizes(len(pixels))):
            x = to_tensor(part, self._encoder.image, self._encoder.device, out=self._pixels)
            found.append(self._checked(self._encoder.encode_images(x), len(part)).half())
        return found

    def _embed_texts(self, texts: Sequence[str]) -> NDArray[np.float16]:
        rest = iter(texts)
        parts = [list(itertools.islice(rest, size)) for size in self._sizes(len(texts))]
        found = [self._checked(self._encoder.encode_texts(part), len(part)).half() for part in parts]
        return torch.cat(found).cpu().numpy()

    def _sizes(self, count: int) -> list[int]:
        """Of batches: shards differ in their last one, and a CPU does not like what it has not multiplied before."""
        if not self._on_gpu:
            return few_sizes(count, self._batch_size)
        return [min(self._batch_size, count - done) for done in range(0, count, self._batch_size)]

    def _checked(self, rows: Tensor, count: int) -> Tensor:
        if rows.shape != (count, self._encoder.dim):
            raise InputError(
                f"Teacher {self._encoder.id} gave {tuple(rows.shape)}, expected {(count, self._encoder.dim)}.",
                "The teacher's folder does not fit its manifest: run `cliprd teacher` again.",
            )
        return rows

    def _stands(self, shard: Shard, captions: Sequence[tuple[str, ...]], new: str) -> bool:
        """Whether a file from a cache of other shards is what a build from nothing would write now; see `reuse`."""
        flat = [caption for several in captions for caption in several]
        keys = [digest(caption) for caption in flat]
        text = read_text(self._folder / file_name(shard))
        if digest_of(self._known.new(flat)) != new or not self._known.agree(keys, text):
            return False
        self._known.remember(keys, text)
        return True

    def _write(
        self, shard: Shard, images: list[Tensor], text: NDArray[np.float16], counts: list[int], new: str
    ) -> None:
        image = torch.cat(images).reshape(len(counts), self._views, -1).cpu().numpy()
        if not (np.isfinite(image).all() and np.isfinite(text).all()):
            raise InputError(
                f"Teacher {self._encoder.id} gave NaN or Inf for a sample of {shard.name}.", "Check its weights."
            )
        write_rows(self._folder / file_name(shard), image, text, counts, shard, self._identity, new)
        self._commit(file_name(shard))

    def _replay(self, shards: Sequence[Shard]) -> None:
        """Bring the remembered captions to where an undisturbed build would have them behind these finished shards."""
        folder = self._folder
        replay(
            self._known,
            shards,
            lambda shard: [digest(text) for several in self._shards.captions(shard) for text in several],
            lambda shard: read_text(folder / file_name(shard)),
        )

    def _note(self, embedded: Sequence[Shard], seconds: float) -> None:
        images = sum(shard.samples for shard in embedded) * self._views
        reused = len(self._shards.shards) - len(embedded)
        if reused:
            anew = f", the captions of {self._captions_anew} of these anew" if self._captions_anew else ""
            print(f"cliprd: cache: {len(embedded)} shards embedded, {reused} reused{anew}", file=sys.stderr)
        note = {
            "shards_embedded": len(embedded),
            "shards_reused": reused,
            "captions_anew": self._captions_anew,
            "images": images,
            "captions_embedded": self._known.embedded,
            "seconds": seconds,
            "images_per_second": images / seconds if images else None,
        }
        files.write_json(self._folder / manifest.VOLATILE_DIR / THROUGHPUT, note)
