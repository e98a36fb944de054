"""Decodes pictures from the web to upright 8-bit RGB, or rejects them with a reason."""

from __future__ import annotations

import contextlib
import io
import re
import threading

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from cliprd.data.quiet import silence

# Formats that Pillow decodes itself and recognises by their first bytes. Left out: formats that need another program
# (EPS, WMF) or have no signature (TGA), and videos.
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "ICO",
    "PPM",
    "PSD",
    "QOI",
    "SGI",
    "ICNS",
    "DDS",
    "PCX",
    "XBM",
    "XPM",
)
# Frequent contents of failed downloads, recognised so that the rejection names them.
_FOREIGN = {
    "AVIF with features that this build of Pillow does not decode": rb"^....ftypavi[fs]",
    "HEIC": rb"^....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
    "SVG": rb"<svg[\s/>]",
    "HTML": rb"<(html|!doctype html|head|body)\b",
    "compressed with gzip, as .svgz is": rb"^\x1f\x8b",
    "JPEG XL": rb"^(\xff\x0a|\x00\x00\x00\x0cJXL )",
    "EPS": rb"^(%!PS|\xc5\xd0\xd3\xc6)",
    "PDF": rb"%PDF",
    "a video": rb"^(....ftyp|\x1aE\xdf\xa3)",
    "JSON": rb"^\s*[{\[]\s*[\"{\[]",
}
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_bombs = threading.Lock()
silence()


class BadImage(ValueError):
    """An image that cannot be used; `reason` is a short code, `detail` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


def open_header(data: bytes, *, max_pixels: int) -> Image.Image:
    """Parse the header and check the size, without decoding pixels.

    Raises:
        BadImage: `empty_image`, `unsupported_format`, `not_an_image` or `too_many_pixels`.
    """
    if not data:
        raise BadImage("empty_image", "0 bytes")
    try:
        with _bombs:  # replace Pillow's global limit by `max_pixels`, checked below
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data), formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception as error:  # parsers raise exceptions of any type on hostile bytes
        for name, sign in _FOREIGN.items():
            if re.search(sign, data[:1024], re.DOTALL | re.IGNORECASE):
                raise BadImage("unsupported_format", f"{name}; supported are {', '.join(FORMATS)}") from error
        raise BadImage("not_an_image", f"none of {', '.join(FORMATS)}") from error
    if image.width * image.height > max_pixels:
        raise BadImage("too_many_pixels", f"{image.width}x{image.height}, allowed are {max_pixels} pixels")
    return image


def decode(data: bytes, *, max_pixels: int = 64_000_000) -> Image.Image:
    """Decode to an upright RGB image: EXIF orientation applied, alpha on white, 16 bit scaled, first frame taken.

    Raises:
        BadImage: those of `open_header` and of `pixels`.
    """
    return pixels(open_header(data, max_pixels=max_pixels))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of what `pixels` returns for an opened header that `shrink` has not changed."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def is_upright(image: Image.Image) -> bool:
    """Whether an opened header's EXIF orientation needs no rotation or flip."""
    return _orientation(image) not in _UPRIGHT


def shrink(image: Image.Image, most: float) -> int:
    """Set an opened JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, by a factor of at most `most`.

    A decoded pixel covers a square of the original's, so coordinates are divided by the factor; the last row or column
    may cover part of a square.

    Returns:
        The factor; 1 for other formats.
    """
    factor = next((f for f in (8, 4, 2) if f <= most), 1)
    width, height = image.size
    if factor == 1 or not isinstance(image, JpegImageFile) or min(width, height) < factor:
        return 1
    image.draft(None, (width // factor, height // factor))
    return factor


def pixels(image: Image.Image) -> Image.Image:
    """Decode an opened header; see `decode`.

    Raises:
        BadImage: `truncated_image` where pixels end early or are broken, `unsupported_mode` where they are of a kind
            without a standard conversion to 8-bit RGB (floating point, 32-bit, Lab).
    """
    try:
        image.load()
    except Exception as error:
        raise BadImage("truncated_image", " ".join(str(error).split())[:200]) from error
    try:
        turn = _UPRIGHT.get(_orientation(image))
        image = _rgb(image)
        return image.transpose(turn) if turn is not None else image
    except BadImage:
        raise
    except Exception as error:  # so do conversions of hostile pixels
        raise BadImage("unsupported_mode", f"{image.mode}: {' '.join(str(error).split())[:200]}") from error


def is_plain(data: bytes, *, max_pixels: int) -> bool:
    """Whether any decoder gives the same pixels as `decode`: 8 bit, no alpha, one frame, upright."""
    image = open_header(data, max_pixels=max_pixels)
    return (
        image.format in ("JPEG", "PNG", "WEBP")
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and not (image.format == "PNG" and data[24] == 16)  # IHDR's bit depth: Pillow hides it in RGB
        and getattr(image, "n_frames", 1) == 1
        and is_upright(image)
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8; 1 if it is absent or the EXIF block is damaged."""
    with contextlib.suppress(Exception):
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32 bit grey: Pillow's conversion clips at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("unsupported_mode", f"values from {values.min()} to {values.max()}, allowed are 16 bit")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("unsupported_mode", "floating point")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")
