"""Fast crops for the student: the boxes of `augment` in a third of the time, equal up to rounding.

Tests and `benchmarks/loading.py` compare it with the plain path. What makes it fast:

- A plain JPEG is decoded by torchvision directly to RGB: the same pixels, without Pillow's four bytes a pixel.
- A JPEG much larger than the crop needs is decoded at 1/2, 1/4 or 1/8 of its size. `MARGIN` says how much larger: the
  JPEG transform drops frequencies above its resolution, of which a plain resize lets some through.
- torch resizes bytes with the CPU's vector units, antialiased as Pillow does. Its resize has a scale but no offset, so
  it starts some output pixels before the box, at an integer pixel. Each axis is resized by itself; an axis for which no
  integer pixel is near enough is left to Pillow.

The teacher uses the plain path: its embeddings are computed once and kept, so speed matters less than exactness.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliprd.data.augment import FILTERS, Box, crop_box, train_view
from cliprd.data.images import is_upright, open_header, pixels, shrink, upright_size
from cliprd.models.image_spec import ImageSpec
from cliprd.params import Augmentation

MARGIN = 2.5  # decoded pixels a view pixel, along a side, that a shrunk JPEG must keep
_REACH = 2  # radius of the filters, in the coarser pixels: a crop's edge sees its surroundings, as in Pillow
_PAD = 100  # how far before the picture a resize may start, in its pixels
_NEAR, _FAR = 1 / 64, 1 / 32  # offsets, in the coarser pixel: accepted at once, and never accepted


def quick_views(
    data: bytes, key: str, views: Iterable[int], augmentation: Augmentation, spec: ImageSpec, *, max_pixels: int
) -> dict[int, NDArray[np.uint8]]:
    """View → uint8 `[size, size, 3]` of an encoded picture, decoded once.

    Raises:
        BadImage: see `images.decode`.
    """
    image = open_header(data, max_pixels=max_pixels)
    size = upright_size(image)
    boxes = {view: crop_box(key, view, *size, augmentation) for view in views}
    smallest = min(min(right - left, low - top) for left, top, right, low in boxes.values())
    factor = shrink(image, smallest / (MARGIN * spec.size))
    picture_HW3 = _plain_jpeg(image, data) if factor == 1 else None
    if picture_HW3 is None:
        picture_HW3 = np.asarray(pixels(image))
    return {
        view: quick_view(picture_HW3, (left / factor, top / factor, right / factor, low / factor), spec)
        for view, (left, top, right, low) in boxes.items()
    }


def _plain_jpeg(image: Image.Image, data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of an upright RGB JPEG; None for all else, damaged files included, whose error Pillow reports."""
    if image.format != "JPEG" or image.mode != "RGB" or not is_upright(image):
        return None
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        pixels_3HW = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    pixels_HW3: NDArray[np.uint8] = pixels_3HW.permute(1, 2, 0).numpy()
    return pixels_HW3


def quick_view(picture_HW3: NDArray[np.uint8], box: Box, spec: ImageSpec) -> NDArray[np.uint8]:
    """`augment.train_view` up to rounding."""
    left, top, right, low = box
    down, across = _Side.of(0, top, low, spec.size), _Side.of(1, left, right, spec.size)
    if not (down.begin or across.begin) or not _vectorised():
        return train_view(Image.fromarray(picture_HW3), box, spec)
    # Down first, as that pass is faster on many pixels. Pillow's axis comes last, when few pixels are left.
    for side in (down, across) if down.begin else (across, down):
        picture_HW3 = (_by_torch if side.begin else _by_pillow)(picture_HW3, side, spec)
    return picture_HW3


class _Side(NamedTuple):
    """How one axis of a picture is resized to the view's size.

    Attributes:
        axis: 0 down, 1 across. start, stop: of the crop. scale: picture pixels a view pixel.
        begin: see `_begin`.
    """

    axis: int
    start: float
    stop: float
    scale: float
    begin: tuple[int, int] | None

    @classmethod
    def of(cls, axis: int, start: float, stop: float, size: int) -> _Side:
        scale = (stop - start) / size
        return cls(axis, start, stop, scale, _begin(start, scale))

    def along(self, first: int, stop: int | None) -> tuple[slice, ...]:
        """The index of a range of the axis."""
        return (slice(None),) * self.axis + (slice(first, stop),)


def _by_torch(picture_HW3: NDArray[np.uint8], side: _Side, spec: ImageSpec) -> NDArray[np.uint8]:
    """Resize one axis from an integer pixel on; the other is unchanged."""
    import torch

    assert side.begin is not None
    extra, first = side.begin
    source = picture_HW3[side.along(max(0, first), _end(side.stop, side.scale))]
    if (pad := max(0, -first)) or not source.flags.writeable:  # torch shares the memory and needs it writable
        shape = list(source.shape)
        shape[side.axis] += pad
        padded = np.empty(shape, dtype=np.uint8)
        padded[side.along(pad, None)] = source
        padded[side.along(0, pad)] = source[side.along(0, 1)]
        source = padded
    sizes, scales = list(source.shape[:2]), [1.0, 1.0]
    # torch copies an axis whose output size equals its input size, ignoring the scale: request one more.
    sizes[side.axis] = extra + spec.size + (extra + spec.size == sizes[side.axis])
    scales[side.axis] = 1 / side.scale
    resize = getattr(torch.ops.aten, f"_upsample_{spec.interpolation}2d_aa")
    x_13HW = torch.from_numpy(source)[None].permute(0, 3, 1, 2)  # channels last, as in memory
    out_HW3: NDArray[np.uint8] = resize(x_13HW, sizes, False, *scales)[0].permute(1, 2, 0).numpy()
    return out_HW3[side.along(extra, extra + spec.size)]


def _by_pillow(picture_HW3: NDArray[np.uint8], side: _Side, spec: ImageSpec) -> NDArray[np.uint8]:
    """Resize one axis exactly, where no integer pixel is near enough."""
    height, width, _ = picture_HW3.shape
    size, box = (width, spec.size), (0.0, side.start, float(width), side.stop)
    if side.axis == 1:
        size, box = (spec.size, height), (side.start, 0.0, side.stop, float(height))
    return np.asarray(Image.fromarray(picture_HW3).resize(size, FILTERS[spec.interpolation], box=box))


def _begin(start: float, scale: float) -> tuple[int, int] | None:
    """(output pixels before `start`, the integer pixel where they start), or None if none is near enough.

    Args:
        start: of the crop. scale: picture pixels an output pixel.
    """
    coarser = max(scale, 1.0)
    nearest, best = _FAR * coarser, None
    for extra in range(int((start + _PAD) / scale) + 1):
        position = start - extra * scale
        pixel = round(position)
        offset = abs(position - pixel)
        if offset < nearest and (pixel == 0 or start - pixel >= _REACH * coarser):
            nearest, best = offset, (extra, pixel)
            if offset < _NEAR * coarser:
                break
    return best


def _end(stop: float, scale: float) -> int:
    """One past the last pixel that the filter reads for a crop that ends at `stop`."""
    return math.ceil(stop + _REACH * max(scale, 1.0)) + 1


@functools.cache
def _vectorised() -> bool:
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
