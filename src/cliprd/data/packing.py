"""Turns a raw record into a sample, or into a rejection with a reason."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import asdict, dataclass

from PIL import Image

from cliprd.data.images import BadImage, decode, is_plain, open_header
from cliprd.data.raw import Raw, shown
from cliprd.data.shards import Sample
from cliprd.names import visible
from cliprd.params import Data

_EXTENSION = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Rejection:
    """A line of `rejected.jsonl`.

    Attributes:
        source: file, tar and key, or table and line of the record.
        key: its key.
        reason: `missing_image several_images empty_image not_an_image unsupported_format too_many_pixels
            truncated_image unsupported_mode missing_caption empty_caption caption_not_utf8 broken_json nested_ending
            link parts_apart ragged_row nul_byte duplicate_key duplicate`.
        detail: more, for people.
    """

    source: str
    key: str
    reason: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON form."""
        return asdict(self)


def pack(raw: Raw, data: Data) -> Sample | Rejection:
    """Check a record. Its pixels are decoded here, so that training never meets an image that cannot be read."""
    try:
        if raw.fault is not None:
            raise BadImage(*raw.fault)
        if raw.image is None:
            raise BadImage("missing_image", shown(raw.found))
        captions = _captions(raw)
        image, extension = _image(raw.image, data)
    except BadImage as bad:
        return Rejection(visible(raw.source), raw.key, bad.reason, bad.detail)
    return Sample(raw.key, image, extension, captions)


def _captions(raw: Raw) -> tuple[str, ...]:
    """Captions with white space collapsed, without repetitions.

    Captions without a visible character (spaces, control and format characters alone) are dropped too.
    """
    if raw.captions is None:
        raise BadImage("missing_caption", shown(raw.found))
    try:
        texts = [caption.decode("utf-8-sig") for caption in raw.captions]
    except UnicodeDecodeError as error:
        raise BadImage("caption_not_utf8", f"{str(error)[:200]}; convert it to UTF-8 (iconv)") from error
    captions = tuple(dict.fromkeys(clean for text in texts if _is_visible(clean := " ".join(text.split()))))
    if not captions:
        raise BadImage("empty_caption", shown(raw.found))
    return captions


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(char)[0] not in "ZC" for char in text)


def _image(data: bytes, params: Data) -> tuple[bytes, str]:
    """The bytes to store.

    Unchanged if every decoder reads them alike. Otherwise the normalised pixels as PNG; a lossy photo that was only
    scaled down to `max_side` becomes JPEG (quality 95, no chroma subsampling), as PNG would take several times the size
    without keeping more detail.
    """
    image = decode(data, max_pixels=params.max_pixels)
    plain = is_plain(data, max_pixels=params.max_pixels)
    form = str(open_header(data, max_pixels=params.max_pixels).format)
    if params.max_side is not None and max(image.size) > params.max_side:
        scale = params.max_side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
        if form == "JPEG" or (form == "WEBP" and b"VP8 " in data[:16]):  # VP8L and VP8X may be lossless
            return _encoded(image, "JPEG", quality=95, subsampling=0), "jpg"
    elif plain:
        return data, _EXTENSION[form]
    return _encoded(image, "PNG"), "png"


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.info.clear()  # drop ICC profile, text and EXIF: the pixels are upright already
    image.save(buffer, format=form, **options)
    return buffer.getvalue()
