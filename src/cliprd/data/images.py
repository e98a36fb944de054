"""Bytes to pixels: every ill that pictures from the web have is either mended here or named."""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_bombs = threading.Lock()


class BadImage(ValueError):
    """An image that cannot be used; `reason` is a short code, `detail` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


def open_header(data: bytes, *, max_pixels: int) -> Image.Image:
    """Parse the header only and check the size, before a single pixel is decoded.

    Raises:
        BadImage: `empty_image`, `not_an_image` or `too_many_pixels`.
    """
    if not data:
        raise BadImage("empty_image", "0 bytes")
    try:
        with _bombs:  # Pillow's own limit is global; ours decides, from the header
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data), formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadImage("not_an_image", f"none of {', '.join(FORMATS)}") from error
    if image.width * image.height > max_pixels:
        raise BadImage("too_many_pixels", f"{image.width}x{image.height}, allowed are {max_pixels}")
    return image


def decode(data: bytes, *, max_pixels: int = 64_000_000) -> Image.Image:
    """Decode to an upright RGB image: EXIF orientation applied, alpha on white, 16 bit scaled, first frame taken.

    Raises:
        BadImage: also `truncated_image` where the pixels end early or are broken.
    """
    image = open_header(data, max_pixels=max_pixels)
    try:
        image.load()
        if image.info.get("transparency") is not None or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
            return _on_white(ImageOps.exif_transpose(image).convert("RGBA"))
        return _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError, TypeError) as error:
        raise BadImage("truncated_image", " ".join(str(error).split())[:200]) from error


def is_plain(data: bytes, *, max_pixels: int) -> bool:
    """Whether a decoder that knows nothing of our rules would see the same pixels (8-bit RGB, one frame, upright)."""
    image = open_header(data, max_pixels=max_pixels)
    return (
        image.format in ("JPEG", "PNG", "WEBP")
        and image.mode == "RGB"
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
        and image.getexif().get(0x0112, 1) == 1
    )


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32 bit grey: Pillow's own conversion clips at 255 and gives a white picture
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("unsupported_depth", f"values from {values.min()} to {values.max()}, allowed are 16 bit")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("unsupported_depth", "floating point")
    return image if image.mode == "RGB" else image.convert("RGB")
