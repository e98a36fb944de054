"""One raw record to one sample for a shard, or to a rejection that says why."""

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
        source: where the record stands.
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
    """Check a record as a whole, its pixels included (they are decoded once, here, so that training never stumbles)."""
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
    """Captions with runs of white space made one space; repetitions within the sample are dropped.

    So are those that hold nothing visible: spaces, control and format characters.
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

    As found, where every decoder agrees on them. Otherwise the mended pixels: lossless PNG; but JPEG of quality 95
    without chroma subsampling where a lossy photo was only scaled down to `max_side`, as PNG would be several times
    the size and keep nothing that the source had.
    """
    image = decode(data, max_pixels=params.max_pixels)
    plain = is_plain(data, max_pixels=params.max_pixels)
    form = str(open_header(data, max_pixels=params.max_pixels).format)
    if params.max_side is not None and max(image.size) > params.max_side:
        scale = params.max_side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
        if form == "JPEG" or (form == "WEBP" and b"VP8 " in data[:16]):  # VP8L and VP8X may be lossless: keep them so
            return _encoded(image, "JPEG", quality=95, subsampling=0), "jpg"
    elif plain:
        return data, _EXTENSION[form]
    return _encoded(image, "PNG"), "png"


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.info.clear()  # no profile, text or EXIF travels: the pixels are upright and final
    image.save(buffer, format=form, **options)
    return buffer.getvalue()
