"""Crops for the student: the boxes of `augment`, in a third of the time and not to the last bit.

Short cuts, the last two of the size of rounding (tests and `benchmarks/loading.py` hold them to the plain path):

- A plain JPEG is decoded by torchvision, straight to bytes of RGB: the same pixels, not by way of Pillow's four bytes.
- A JPEG much larger than the crop needs is decoded at 1/2, 1/4 or 1/8. `MARGIN` says how much larger: the transform
  cuts off what lies above its own resolution, and a plain resize lets some of that through.
- torch resizes bytes with the processor's vector units, antialiased as Pillow does. It knows a scale but no offset, so
  the resize begins as many output pixels before the box as bring its beginning to a whole pixel. Each axis is resized
  by itself; one that no whole pixel comes near is left to Pillow.

The teacher keeps the plain path: its embeddings are kept for ever and made once, and the cache's bytes do not change.
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

MARGIN = 2.5  # pixels that a shrunk crop keeps for each of the view's, along a side
_REACH = 2  # of the filters to either side, in the coarser pixels: a crop's edge sees its surroundings, as in Pillow
_PAD = 100  # how far before the picture a resize may begin, in its pixels
_NEAR, _FAR = 1 / 64, 1 / 32  # of the coarser pixel: an offset that is taken at once, and one that is not taken at all


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
    """The pixels of an upright JPEG in colour; None of all else, and where it is broken, for Pillow to say how."""
    if image.format != "JPEG" or image.mode != "RGB" or not is_upright(image):
        return None
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        pixels_3HW = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    found: NDArray[np.uint8] = pixels_3HW.permute(1, 2, 0).numpy()
    return found


def quick_view(picture_HW3: NDArray[np.uint8], box: Box, spec: ImageSpec) -> NDArray[np.uint8]:
    """`augment.train_view`, but for rounding."""
    left, top, right, low = box
    down, across = _Side.of(0, top, low, spec.size), _Side.of(1, left, right, spec.size)
    if not (down.begin or across.begin) or not _vectorised():
        return train_view(Image.fromarray(picture_HW3), box, spec)
    # Down first: of the two that pass is quicker on many pixels. What is Pillow's is left for last, when they are few.
    for side in (down, across) if down.begin else (across, down):
        picture_HW3 = (_by_torch if side.begin else _by_pillow)(picture_HW3, side, spec)
    return picture_HW3


class _Side(NamedTuple):
    """How one axis of a picture is brought to the view's size.

    Attributes:
        axis: 0 down, 1 across. start, stop: of the crop. scale: pixels of the picture to one of the view.
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
    """One axis resized from a whole pixel on, the other as it is."""
    import torch

    assert side.begin is not None
    more, first = side.begin
    seen = picture_HW3[side.along(max(0, first), _end(side.stop, side.scale))]
    if (pad := max(0, -first)) or not seen.flags.writeable:  # torch shares memory and wants it writable
        shape = list(seen.shape)
        shape[side.axis] += pad
        padded = np.empty(shape, dtype=np.uint8)
        padded[side.along(pad, None)] = seen
        padded[side.along(0, pad)] = seen[side.along(0, 1)]
        seen = padded
    sizes, scales = list(seen.shape[:2]), [1.0, 1.0]
    # A side that has as many pixels as are asked for would be copied, whatever the scale: ask for one more.
    sizes[side.axis] = more + spec.size + (more + spec.size == sizes[side.axis])
    scales[side.axis] = 1 / side.scale
    resize = getattr(torch.ops.aten, f"_upsample_{spec.interpolation}2d_aa")
    x_13HW = torch.from_numpy(seen)[None].permute(0, 3, 1, 2)  # channels last, as the picture lies in memory
    out_HW3: NDArray[np.uint8] = resize(x_13HW, sizes, False, *scales)[0].permute(1, 2, 0).numpy()
    return out_HW3[side.along(more, more + spec.size)]


def _by_pillow(picture_HW3: NDArray[np.uint8], side: _Side, spec: ImageSpec) -> NDArray[np.uint8]:
    """The same, exact, for where no whole pixel comes near."""
    height, width, _ = picture_HW3.shape
    size, box = (width, spec.size), (0.0, side.start, float(width), side.stop)
    if side.axis == 1:
        size, box = (spec.size, height), (side.start, 0.0, side.stop, float(height))
    return np.asarray(Image.fromarray(picture_HW3).resize(size, FILTERS[spec.interpolation], box=box))


def _begin(start: float, scale: float) -> tuple[int, int] | None:
    """(output pixels before `start`, the whole pixel that they begin at), or None where none comes near enough.

    Args:
        start: where the crop begins. scale: pixels of the picture to one of the output.
    """
    coarser = max(scale, 1.0)
    least, found = _FAR * coarser, None
    for more in range(int((start + _PAD) / scale) + 1):
        place = start - more * scale
        whole = round(place)
        off = abs(place - whole)
        if off < least and (whole == 0 or start - whole >= _REACH * coarser):
            least, found = off, (more, whole)
            if off < _NEAR * coarser:
                break
    return found


def _end(stop: float, scale: float) -> int:
    """The first pixel behind all that the filter reads for a crop that ends at `stop`."""
    return math.ceil(stop + _REACH * max(scale, 1.0)) + 1


@functools.cache
def _vectorised() -> bool:
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
