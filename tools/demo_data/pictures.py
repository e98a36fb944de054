"""From any source image to a small square on white, and to bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

QUALITY = 75
MAX_PIXELS = 16_000_000  # a few clip arts have over 100 megapixels


def square(path: Path, side: int) -> Image.Image | None:
    """Cut to what can be seen, on white, padded to a square of `side` pixels; None where empty or huge."""
    Image.MAX_IMAGE_PIXELS = None  # the limit here is MAX_PIXELS, checked before anything is decoded
    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            return None
        image = image.convert("RGBA")
    if max(image.size) > 8 * side:
        image.thumbnail((8 * side, 8 * side), Image.Resampling.BOX)
    page = Image.new("RGBA", image.size, (255, 255, 255, 255))
    page.alpha_composite(image)
    flat = page.convert("RGB")
    box = ImageChops.difference(flat, Image.new("RGB", flat.size, "white")).point(lambda v: 255 * (v > 24)).getbbox()
    if box is None:
        return None
    flat = flat.crop(box)
    margin = max(flat.size) // 24
    white = Image.new("RGB", (max(flat.size) + 2 * margin,) * 2, "white")
    white.paste(flat, ((white.width - flat.width) // 2, (white.height - flat.height) // 2))
    flat = white.resize((side, side), Image.Resampling.LANCZOS)
    return flat if np.ptp(np.asarray(flat)) > 32 else None


def encode(image: Image.Image, form: str = "webp") -> bytes:
    """WebP as small as it gets at the chosen quality, or PNG."""
    buffer = io.BytesIO()
    if form == "webp":
        image.save(buffer, "WEBP", quality=QUALITY, method=6)
    else:
        image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """What a reader of the tar will see: comparisons are made on that."""
    return Image.open(io.BytesIO(data)).convert("RGB")
