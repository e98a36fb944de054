"""Every ill a picture can have: mended to known pixels, or named."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cliprd.data.images import BadImage, decode, is_plain, open_header
from tests.data.pictures import bomb, encoded, noise, png, with_orientation

PLAIN = 10**6


def reason(data, **options):
    with pytest.raises(BadImage) as caught:
        decode(data, **options)
    return caught.value.reason


def test_plain_pictures_keep_their_pixels():
    assert np.array_equal(np.asarray(decode(png())), noise())
    assert np.array_equal(np.asarray(decode(encoded(noise(), "WEBP", lossless=True))), noise())
    data = encoded(noise(), "JPEG")
    assert np.array_equal(np.asarray(decode(data)), np.asarray(Image.open(io.BytesIO(data))))
    assert all(is_plain(d, max_pixels=PLAIN) for d in (png(), data, encoded(noise(channels=1), "JPEG")))


def test_data_that_is_no_picture_is_named():
    assert reason(b"") == "empty_image"
    assert reason(b"<html><body>404</body></html>") == "unsupported_format"
    assert reason(b'<?xml version="1.0"?><svg/>') == "unsupported_format"
    assert reason(b"hello") == "not_an_image"
    assert reason(png()[:20]) == "not_an_image"
    assert reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "unsupported_format"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_rejected(form):
    data = encoded(noise(120, 90), form)
    assert reason(data[: len(data) * 2 // 3]) in ("truncated_image", "not_an_image")


def test_decompression_bombs_are_refused_from_the_header(monkeypatch):
    data, small = bomb(), png()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("pixels were decoded"))
    assert reason(data) == "too_many_pixels"
    assert reason(small, max_pixels=40 * 30 - 1) == "too_many_pixels"
    assert open_header(small, max_pixels=40 * 30).size == (40, 30)


def test_pillows_own_limit_does_not_decide(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(png()).size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(orientation, form):
    data = with_orientation(orientation, form)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(upright))
    assert is_plain(data, max_pixels=PLAIN) == (orientation == 1)


def test_exif_orientation_of_alpha_and_16_bit():
    turned = np.rot90(noise(channels=1, depth=16), -1) // 257
    got = np.asarray(decode(with_orientation(6, "PNG", noise(channels=1, depth=16))))
    assert np.array_equal(got[..., 0], turned)
    opaque = np.dstack([noise(), np.full((30, 40), 255, np.uint8)])
    assert np.array_equal(np.asarray(decode(with_orientation(6, "PNG", opaque))), np.rot90(noise(), -1))


def test_broken_exif_does_not_reject_the_picture():
    data = encoded(noise(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xffbroken")
    assert decode(data).size == (40, 30)
    assert is_plain(data, max_pixels=PLAIN)


def test_alpha_is_pasted_on_white():
    alpha = noise(channels=1, seed=1)
    data = encoded(np.dstack([noise(), alpha]))
    expected = noise() * (alpha[..., None] / 255.0) + 255 * (1 - alpha[..., None] / 255.0)
    assert np.abs(np.asarray(decode(data), float) - expected).max() <= 1
    assert not is_plain(data, max_pixels=PLAIN)


def test_transparent_pixels_are_white_in_every_kind():
    clear = Image.fromarray(np.dstack([noise(), np.zeros((30, 40), np.uint8)]))
    grey = Image.merge("LA", (Image.fromarray(noise(channels=1)), Image.new("L", (40, 30), 0)))
    palette = Image.new("P", (40, 30), 3)
    palette.putpalette([7] * 768)
    rgb_key = encoded(np.full((30, 40, 3), 9, np.uint8), transparency=(9, 9, 9))
    for data in (
        encoded(clear),
        encoded(clear, "WEBP", lossless=True, exact=True),
        encoded(grey),
        encoded(palette, transparency=3),
        encoded(palette, "GIF", transparency=3),
        rgb_key,
    ):
        assert np.asarray(decode(data)).min() == 255
        assert not is_plain(data, max_pixels=PLAIN)


def test_palette_without_transparency():
    palette = Image.fromarray(noise()).quantize(16)
    assert np.array_equal(np.asarray(decode(encoded(palette))), np.asarray(palette.convert("RGB")))


def test_cmyk_is_converted_to_rgb():
    ink = Image.new("CMYK", (40, 30), (0, 255, 255, 0))
    data = encoded(ink, "JPEG", quality=100)
    got = np.asarray(decode(data), int)
    assert np.abs(got - [255, 0, 0]).max() <= 4
    assert not is_plain(data, max_pixels=PLAIN)


def test_16_bit_grey_is_scaled_not_clipped():
    deep = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)
    for form in ("PNG", "TIFF"):
        got = np.asarray(decode(encoded(deep, form)))[..., 0]
        assert np.abs(got - deep / 257.0).max() <= 1
    assert not is_plain(encoded(deep), max_pixels=PLAIN)


def test_16_bit_colour_is_not_plain():
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">HHH", 65535, 32896, 0) * 4
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 4))
        + chunk(b"IEND", b"")
    )
    assert np.array_equal(np.asarray(decode(data))[0, 0], [255, 128, 0])
    assert not is_plain(data, max_pixels=PLAIN)


def test_modes_without_standard_8_bit_conversion_are_rejected():
    assert reason(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")) == "unsupported_mode"
    assert reason(encoded(Image.fromarray(np.full((4, 4), 2**20, np.int32)), "TIFF")) == "unsupported_mode"


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=40, **options)
    assert np.asarray(decode(data))[0, 0].tolist() == [255, 0, 0]
    assert not is_plain(data, max_pixels=PLAIN)


_GOOD = [png(), encoded(noise(), "JPEG"), encoded(noise(), "WEBP"), encoded(noise(), "GIF"), encoded(noise(), "TIFF")]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(_GOOD), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), st.floats(0, 1)
)
def test_hostile_bytes_give_a_picture_or_a_reason(data, flips, keep):
    broken = bytearray(data[: max(1, int(len(data) * (0.3 + 0.7 * keep)))])
    for place, value in flips:
        broken[place % len(broken)] = value
    for call in (decode, is_plain):
        try:
            call(bytes(broken), max_pixels=10**5)
        except BadImage as bad:
            assert bad.reason


NOISY = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4", "packbits", "tiff_ccitt", "zstd", "lzma")


def hostile_pictures():
    """Pictures over which Pillow and libtiff write warnings, log records and lines of C code."""
    for mode, compression in [("1" if "ccitt" in c or c == "group4" else "RGB", c) for c in NOISY]:
        file = io.BytesIO()
        Image.new(mode, (64, 64)).save(file, "TIFF", compression=compression)
        whole = file.getvalue()
        yield whole[: len(whole) // 2]
        yield whole[:-300] + b"\0" * 10
        for step in (7, 11, 13, 40):
            data = bytearray(whole)
            for place in range(12, len(data) // 2, step):
                data[place] ^= 0xFF
            yield bytes(data)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(file, format, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
        whole = file.getvalue()
        yield whole[: len(whole) * 2 // 3]
        for step in (5, 17, 61):
            data = bytearray(whole)
            for place in range(len(data) // 3, len(data), step):
                data[place] ^= 0xFF
            yield bytes(data)
    yield (Path(__file__).parents[2] / "README.md").read_bytes()


def test_decoders_write_nothing_to_stderr(tmp_path):
    """In a process of its own: pytest takes warnings away. What is wrong is the reason that `decode` raises."""
    for number, data in enumerate(hostile_pictures()):
        (tmp_path / f"{number:03d}").write_bytes(data)
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from cliprd.data.images import BadImage, decode, is_plain, open_header, upright_size
def look(path):
    data = path.read_bytes()
    most = 10**6
    calls = (decode, lambda d: is_plain(d, max_pixels=most), lambda d: upright_size(open_header(d, max_pixels=most)))
    for call in calls:
        try:
            call(data)
        except BadImage as error:
            assert error.reason
    return 1
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(look, Path(sys.argv[1]).iterdir())))
"""
    ran = subprocess.run([sys.executable, "-W", "always", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert int(ran.stdout) > 60


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *(
            ("AVIF", "RGB"),
            ("JPEG2000", "RGB"),
            ("ICO", "RGBA"),
            ("PPM", "RGB"),
            ("PPM", "1"),
            ("QOI", "RGB"),
            ("SGI", "RGB"),
        ),
        *(("PCX", "RGB"), ("PCX", "P"), ("XBM", "1")),
        *(("TIFF", "CMYK"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "P"), ("GIF", "P"), ("MPO", "RGB"), ("DDS", "RGBA")),
    ],
)
def test_formats_that_pillow_decodes_are_accepted(form, mode):
    image = Image.fromarray(noise(32, 32)).convert(mode)
    data = encoded(image, form)
    theirs = Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB")
    ours = decode(data)
    assert (ours.mode, ours.size) == ("RGB", theirs.size)
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).mean() < 1


@pytest.mark.parametrize(
    "form", sorted({"ICNS", "PNG", "GIF", "TIFF", "BMP", "PCX", "ICO", "AVIF", "DDS", "SGI", "QOI"})
)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_form_and_mode_is_a_picture_or_has_a_reason(form, mode):
    """Pillow writes a palette into an ICNS and does not find it again."""
    grey = Image.fromarray(noise(32, 32)).convert("L")
    try:
        data = encoded(grey.convert(mode), form)
    except (OSError, ValueError):
        pytest.skip("Pillow does not write it")
    try:
        assert decode(data).mode == "RGB"
    except BadImage as bad:
        assert (bad.reason, form, mode) in {("unsupported_mode", "ICNS", "P"), ("unsupported_mode", "TIFF", "F")}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypmif1", "HEIC"),
        (b"<?xml version='1.0'?>" + b" " * 500 + b"<svg xmlns='x'>", "SVG"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xff\x0a\0", "JPEG XL"),
        (b"%!PS-Adobe", "EPS"),
        (b"\0\0\0\x18ftypmp42", "video"),
        (b'{"error": "gone"}', "JSON"),
        (b"<!doctype HTML>", "HTML"),
    ],
)
def test_foreign_formats_are_named(data, name):
    with pytest.raises(BadImage) as caught:
        decode(data)
    assert caught.value.reason == "unsupported_format"
    assert name in caught.value.detail
