"""Small pictures, embedded in the page."""

from __future__ import annotations

import base64
import io

from PIL import Image

SIDE = 96


def data_uri(image: Image.Image, *, side: int = SIDE) -> str:
    """The picture fitted on a white square of `side` pixels, as a WebP `data:` URI (about 2 kB)."""
    picture = image.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", quality=78, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
