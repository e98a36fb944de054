"""Image-text pairs with their teacher's embeddings, as a map-style torch dataset for anyone's own loop."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import Dataset

from cliprd.data.augment import to_tensor, view_of
from cliprd.data.shards import Shard, ShardSet
from cliprd.data.tar import tar_places
from cliprd.distill.order import caption_of
from cliprd.distill.rows import crops_of
from cliprd.errors import InputError
from cliprd.models.image_spec import ImageSpec
from cliprd.models.text import tokenizer_of
from cliprd.params import Student
from cliprd.teacher_cache import TeacherCache

Tokenizer = Callable[[Sequence[str]], Tensor]
_STUDENT = Student()


class CachedPairs(Dataset[dict[str, Any]]):
    """The pairs of a shard set in the order of its shards, each cropped as its teacher saw it.

    Which of the cached views and which caption of pair `key` an epoch shows is a function of (key, epoch), the crop of
    a view one of (augmentation.seed, key, view): the same on every machine, in every worker, in any order. These are
    the samples that `cliprd distill` trains on.

    It goes into a plain DataLoader, with workers (forked or spawned: each opens its own files when it first needs them)
    and with a DistributedSampler. Shards in S3 are fetched whole, once a process, and kept on this machine.

    An item is a dict that torch's default collation makes batches of:

        image          float32 [3, S, S], normalised by `mean` and `std`
        tokens         int64 [L], of the epoch's caption
        teacher_image  float32 [dim], teacher_text float32 [dim]: L2-normalised
        key, caption   str

    Args:
        shards: of `cliprd.open_shards`.
        cache: of `cliprd.open_teacher_cache`, opened against these shards.
        image_size: S, of the student.
        mean, std, interpolation: of the student's pixels; by default open_clip's.
        context_length: L, of open_clip's own tokenizer.
        tokenizer: texts → int64 `[B, L]`, in place of open_clip's; it must pickle where workers are spawned.

    Raises:
        ValueError: image_size or context_length is below 1.
        InputError: from an item: a shard or a picture is damaged.
    """

    def __init__(
        self,
        shards: ShardSet,
        cache: TeacherCache,
        *,
        image_size: int,
        mean: tuple[float, float, float] = _STUDENT.mean,
        std: tuple[float, float, float] = _STUDENT.std,
        interpolation: Literal["bicubic", "bilinear"] = _STUDENT.interpolation,
        context_length: int = 77,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if image_size < 1 or context_length < 1:
            raise ValueError(f"image_size {image_size}, context_length {context_length}: at least 1 is needed")
        self._shards, self._cache = shards, cache
        self._spec = ImageSpec(size=image_size, mean=mean, std=std, interpolation=interpolation)
        self._text_cfg, self._tokenizer = {"text_cfg": {"context_length": context_length}}, tokenizer
        self._ends = list(accumulate(shard.samples for shard in shards.shards))
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that live on see it change
        self._opened: dict[int, _OpenShard] = {}

    @property
    def teacher_scale(self) -> float:
        """The teacher's logit scale, already exponentiated."""
        return self._cache.logit_scale

    def set_epoch(self, epoch: int) -> None:
        """Show the views and captions of `epoch`, from 0, from the next pass on; also in workers that live on."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self._shards.samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        index %= len(self)
        number = bisect.bisect_right(self._ends, index)
        if number not in self._opened:
            self._opened[number] = _OpenShard(self._shards, self._cache, self._shards.shards[number])
        shard, epoch = self._opened[number], int(self._epoch)
        row = index - self._ends[number] + shard.samples
        key, image, captions = shard.sample(row)
        view, chosen = view_of(key, epoch, self._cache.views), caption_of(key, epoch, len(captions))
        crop_1SS3 = crops_of(image, key, [view], self._cache.augmentation, self._spec)[view][None]
        caption = captions[chosen]
        tokenizer = self._tokenizer or tokenizer_of(self._text_cfg)
        return {
            "image": to_tensor(crop_1SS3, self._spec)[0].contiguous(),
            "tokens": tokenizer([caption])[0],
            "teacher_image": _embedding(shard.rows.image[row, view]),
            "teacher_text": _embedding(shard.rows.text[row, chosen]),
            "key": key,
            "caption": caption,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # each process opens its own


class _OpenShard:
    """One shard for reads at random: where its files lie, and its teacher's rows, memory-mapped."""

    def __init__(self, shards: ShardSet, cache: TeacherCache, shard: Shard) -> None:
        self.samples, self.rows = shard.samples, cache.read(shard)
        self._kept = contextlib.ExitStack()
        self._path: Path = self._kept.enter_context(shards.file(shard))
        places = list(tar_places(self._path))
        self._places = list(zip(places[::2], places[1::2], strict=True))  # image and caption of each sample
        if len(self._places) != shard.samples:
            raise InputError(
                f"{shards.where(shard)} holds {len(self._places)} samples, expected {shard.samples}.",
                f"Delete {shards.folder} and run `cliprd prepare` again.",
            )

    def sample(self, row: int) -> tuple[str, bytes, list[str]]:
        """Key, encoded picture and captions."""
        (_, start, size), (name, text_start, text_size) = self._places[row]
        with self._path.open("rb") as file:  # at each read, so that a thousand shards need no thousand open files
            file.seek(start)
            image = file.read(size)
            file.seek(text_start)
            return name.removesuffix(".txt"), image, file.read(text_size).decode().split("\n")


def _embedding(row: np.ndarray[Any, Any]) -> Tensor:
    return normalize(torch.from_numpy(row.astype(np.float32)), dim=0)  # float16 rounding left it a bit off
