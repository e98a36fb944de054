"""Builds batches from samples: crops, tokens and the teacher's embeddings of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprd.data.augment import view_of
from cliprd.data.images import BadImage
from cliprd.data.quick import quick_views
from cliprd.distill.order import caption_of
from cliprd.errors import InputError
from cliprd.models.image_spec import ImageSpec
from cliprd.models.student import tokenize
from cliprd.params import Augmentation

_CHECKED_BY_PREPARE = 2**62  # the shards hold no image that `data.max_pixels` refuses


@dataclass(slots=True)
class Row:
    """A sample in memory.

    Attributes:
        key, captions: as in the shard.
        image: encoded bytes; None once all its crops are in memory.
        teacher_image: float16 [views, dim], teacher_text: float16 [captions, dim].
        crops, tokens: kept from earlier epochs, by view and by caption.
    """

    key: str
    captions: tuple[str, ...]
    image: bytes | None
    teacher_image: NDArray[np.float16]
    teacher_text: NDArray[np.float16]
    crops: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    tokens: dict[int, NDArray[np.int32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """B samples of one step.

    Attributes:
        images: uint8 [B, S, S, 3], cropped by the same box that the teacher saw.
        tokens: int64 [B, L], L the longest caption of the batch.
        teacher_image, teacher_text: float16 [B, dim] as cached, normalised up to rounding.
    """

    images: Tensor
    tokens: Tensor
    teacher_image: Tensor
    teacher_text: Tensor

    def pin(self) -> Batch:
        """A copy in page-locked memory, for asynchronous transfers to a GPU."""
        return Batch(*(t.pin_memory() for t in (self.images, self.tokens, self.teacher_image, self.teacher_text)))


def crops_of(
    image: bytes, key: str, views: Iterable[int], augmentation: Augmentation, spec: ImageSpec
) -> dict[int, NDArray[np.uint8]]:
    """View → crop `[S, S, 3]` of a sample's encoded picture.

    Raises:
        InputError: it cannot be decoded.
    """
    try:
        return quick_views(image, key, views, augmentation, spec, max_pixels=_CHECKED_BY_PREPARE)
    except BadImage as error:
        raise InputError(f"Sample '{key}' cannot be decoded: {error}.", "Run `cliprd prepare` again.") from error


class Preparer:
    """Builds batches from rows.

    Args:
        spec: of the student's image tower.
        model_cfg: the student's open_clip config, which names the tokenizer.
        augmentation: of the teacher cache.
        views: stored per image in the teacher cache.
        epochs: of the training.
        keep: rows stay in memory over all epochs, so keep their crops and tokens too.
    """

    def __init__(
        self,
        spec: ImageSpec,
        model_cfg: Mapping[str, Any],
        augmentation: Augmentation,
        *,
        views: int,
        epochs: int,
        keep: bool,
    ) -> None:
        self._spec, self._model_cfg, self._augmentation = spec, model_cfg, augmentation
        self._views, self._epochs, self._keep = views, epochs, keep

    def batch(self, rows: Sequence[Row], epoch: int) -> Batch:
        """Epoch `epoch`'s view and caption of each row."""
        views = [view_of(row.key, epoch, self._views) for row in rows]
        captions = [caption_of(row.key, epoch, len(row.captions)) for row in rows]
        tokens = [self._tokens(row, caption) for row, caption in zip(rows, captions, strict=True)]
        padded = np.zeros((len(rows), max(map(len, tokens))), dtype=np.int64)
        for line, ids in zip(padded, tokens, strict=True):
            line[: len(ids)] = ids
        return Batch(
            images=torch.from_numpy(np.stack([self._crop(row, view) for row, view in zip(rows, views, strict=True)])),
            tokens=torch.from_numpy(padded),
            teacher_image=torch.from_numpy(np.stack([r.teacher_image[v] for r, v in zip(rows, views, strict=True)])),
            teacher_text=torch.from_numpy(np.stack([r.teacher_text[c] for r, c in zip(rows, captions, strict=True)])),
        )

    def _crop(self, row: Row, view: int) -> NDArray[np.uint8]:
        if (kept := row.crops.get(view)) is not None:
            return kept
        assert row.image is not None
        # Decoding costs more than cropping: where crops are kept, take all that the epochs will ask for at once.
        wanted = {view_of(row.key, e, self._views) for e in range(self._epochs)} if self._keep else {view}
        crops = crops_of(row.image, row.key, wanted, self._augmentation, self._spec)
        if self._keep:
            row.crops.update(
                (v, crop.copy()) for v, crop in crops.items()
            )  # a copy, so that the decoded picture is freed
            row.image = None
        return crops[view]

    def _tokens(self, row: Row, caption: int) -> NDArray[np.int32]:
        if (kept := row.tokens.get(caption)) is not None:
            return kept
        ids = tokenize(self._model_cfg, [row.captions[caption]])[0].numpy().astype(np.int32)
        if self._keep:
            row.tokens[caption] = ids
        return ids
