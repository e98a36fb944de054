"""Stateless augmentation: a crop is a pure function of (seed, sample key, view).

So only embeddings are cached, student and teacher see the same box at their own resolution, and any process can
reproduce any view. Random numbers come from BLAKE2b as a counter-based generator.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliprd.models.image_spec import ImageSpec
from cliprd.params import Augmentation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VERSION = 1
_SLENDER = 200  # aspect ratio from which the resized picture would be too large for memory
Box = tuple[float, float, float, float]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _uniforms(*identity: object) -> Iterator[float]:
    """An endless stream of numbers in [0, 1), 53 bits each, determined by `identity`."""
    message = "\0".join(str(part) for part in identity).encode()
    for block in range(2**31):
        bits = hashlib.blake2b(message, digest_size=64, salt=block.to_bytes(16, "little")).digest()
        for start in range(0, 64, 8):
            yield (int.from_bytes(bits[start : start + 8], "little") >> 11) * 2.0**-53


def crop_box(key: str, view: int, width: int, height: int, augmentation: Augmentation) -> Box:
    """The crop (left, top, right, bottom) of one view, in pixels of an image of `width` × `height`.

    The distribution is that of torchvision's RandomResizedCrop (area uniform, log-ratio uniform, ten tries, then the
    largest centred crop within the ratio limits), without rounding to whole pixels.

    BLAKE2b, `+ - * /` and `sqrt` are exact to the last bit everywhere; `exp` and `log` of the ratio may differ in the
    last bit between C libraries, which moves a box by less than 1e-12 pixels.
    """
    numbers = _uniforms("crop", VERSION, augmentation.seed, key, view)
    (low, high), (narrow, wide) = augmentation.scale, augmentation.ratio
    for _ in range(10):
        area = width * height * (low + (high - low) * next(numbers))
        ratio = math.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * next(numbers))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = (width - w) * next(numbers), (height - h) * next(numbers)
            return left, top, min(left + w, float(width)), min(top + h, float(height))
    ratio = min(max(width / height, narrow), wide)
    w, h = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, min(left + w, float(width)), min(top + h, float(height))


def view_of(key: str, epoch: int, views: int) -> int:
    """The view that epoch `epoch` of sample `key` uses: hash(key, epoch) mod `views`."""
    digest = hashlib.blake2b(f"{key}\0{epoch}".encode(), digest_size=8, salt=b"view").digest()
    return int.from_bytes(digest, "little") % views


def train_view(image: Image.Image, box: Box, spec: ImageSpec) -> NDArray[np.uint8]:
    """Crop `box` and resize it, antialiased, to uint8 `[size, size, 3]`, in one pass over the pixels."""
    resized = image.resize((spec.size, spec.size), FILTERS[spec.interpolation], box=box)
    return np.asarray(resized, dtype=np.uint8)


def eval_view(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """open_clip's evaluation view, `[size, size, 3]`: see `ImageSpec.resize_mode`."""
    if spec.resize_mode == "squash":
        return train_view(image, (0.0, 0.0, float(image.width), float(image.height)), spec)
    if spec.resize_mode == "longest":
        return _padded_eval_view(image, spec)
    short, long = sorted(image.size)
    if long > _SLENDER * short:
        return _slender_eval_view(image, spec)
    crop, resize = _eval_transform(spec.size, spec.interpolation)
    return np.asarray(crop(resize(image)), dtype=np.uint8)


def _padded_eval_view(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """The longer side resized to `size`, black on both sides of the shorter one."""
    ratio = max(image.size) / spec.size
    width, height = (max(1, round(side / ratio)) for side in image.size)
    square = Image.new("RGB", (spec.size, spec.size))
    resized = image.resize((width, height), FILTERS[spec.interpolation])
    square.paste(resized, ((spec.size - width) // 2, (spec.size - height) // 2))
    return np.asarray(square, dtype=np.uint8)


def _slender_eval_view(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """The same view up to rounding, without the resized image, which of a 1 × 60,000 picture would take gigabytes."""
    size = spec.size
    short, long = sorted(image.size)
    resized = int(size * long / short)  # torchvision's rounding
    start = round((resized - size) / 2.0)  # CenterCrop's
    low, high = start * long / resized, (start + size) * long / resized
    box = (low, 0.0, high, float(short)) if image.width > image.height else (0.0, low, float(short), high)
    return train_view(image, box, spec)


@functools.lru_cache(maxsize=16)
def _eval_transform(size: int, interpolation: str) -> tuple[Any, Any]:
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    return CenterCrop(size), Resize(size, InterpolationMode(interpolation), antialias=True)


def to_tensor(
    batch_BSS3: NDArray[np.uint8] | Tensor,
    spec: ImageSpec,
    device: torch.device | None = None,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """uint8 `[B, S, S, 3]` → normalised float32 `[B, 3, S, S]` on `device`, converted after the transfer.

    The result is in channels-last memory format, in which convolutions are faster. `out`, with at least B rows on
    `device` in channels-last format, is written to and its first B rows are returned: allocating memory for a batch of
    large pictures costs more than the arithmetic.
    """
    import torch  # slow to import, and not needed by processes that only crop

    if isinstance(batch_BSS3, np.ndarray) and not batch_BSS3.flags.writeable:
        batch_BSS3 = batch_BSS3.copy()  # torch shares the memory and needs it writable
    pixels_BSS3 = torch.as_tensor(batch_BSS3).to(device, non_blocking=True)
    b, height, width, channels = pixels_BSS3.shape
    mean, std = (torch.tensor(x, device=pixels_BSS3.device) * 255 for x in (spec.mean, spec.std))
    # In place, and by lines, as three channels are too few for vector units: a quarter of the plain arithmetic's time.
    lines_BSL = pixels_BSS3.reshape(b, height, width * channels)
    x_BSL = lines_BSL.float() if out is None else out[:b].permute(0, 2, 3, 1).view(lines_BSL.shape).copy_(lines_BSL)
    x_BSL.sub_(mean.repeat(width)).div_(std.repeat(width))
    return x_BSL.view(b, height, width, channels).permute(0, 3, 1, 2)
