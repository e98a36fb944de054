"""Quick crops against the plain path: the same box, to rounding, whatever the picture is."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cliprd.data import quick
from cliprd.data.augment import crop_box, to_tensor, train_view
from cliprd.data.images import BadImage, decode, open_header, pixels, shrink, upright_size
from cliprd.data.quick import MARGIN, quick_view, quick_views
from cliprd.demo_teacher.efficientnet import MEAN, STD, EfficientNetLite0
from cliprd.models.image_spec import ImageSpec
from cliprd.params import Augmentation
from tests.data.pictures import encoded, noise, png

SPEC = ImageSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
AUGMENTATION = Augmentation()
PHOTOS = Path(__file__).parents[2] / "data/demo/gpl-2/tuxpaint_photos/test/0.tar"


def smooth(width, height, seed=0):
    """A picture without detail finer than some pixels, as photographs are."""
    return Image.fromarray(noise(max(2, width // 8), max(2, height // 8), seed) // 2 + 64).resize((width, height))


def plain_views(data, key, views, spec=SPEC):
    image = decode(data)
    return {v: train_view(image, crop_box(key, v, *image.size, AUGMENTATION), spec) for v in views}


def quick_of(data, key="k", views=(0, 1), spec=SPEC):
    return quick_views(data, key, views, AUGMENTATION, spec, max_pixels=10**8)


def difference(some, others):
    return np.abs(np.stack([some[v].astype(int) - others[v] for v in others]))


@pytest.fixture(scope="module")
def photos():
    with tarfile.open(PHOTOS) as tar:
        found = [decode(tar.extractfile(m).read()) for m in tar if m.name.endswith(".webp")]
    return found[::11]


@settings(max_examples=150, deadline=None)
@given(st.integers(32, 300), st.integers(32, 300), st.text(min_size=1, max_size=4), st.integers(8, 64))
def test_quick_views_match_the_plain_path(width, height, key, size):
    image = smooth(width, height)
    spec = ImageSpec(size=size, mean=SPEC.mean, std=SPEC.std)
    box = crop_box(key, 0, width, height, Augmentation(scale=(0.2, 1.0)))
    off = np.abs(quick_view(np.asarray(image), box, spec).astype(int) - train_view(image, box, spec))
    assert off.mean() < 2.5  # where a view's pixel is of 40 by 40, few places come near
    assert off.max() < 24


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_box_on_whole_pixels_is_exact_to_one_level(interpolation):
    spec = ImageSpec(size=32, mean=SPEC.mean, std=SPEC.std, interpolation=interpolation)
    image = Image.fromarray(noise(120, 90))
    for box in ((0.0, 0.0, 120.0, 90.0), (10.0, 7.0, 100.0, 81.0)):
        assert np.abs(quick_view(np.asarray(image), box, spec).astype(int) - train_view(image, box, spec)).max() <= 1


@settings(deadline=None)
@given(st.tuples(st.floats(0, 6), st.floats(0, 6)), st.integers(20, 60))
def test_padding_before_the_picture_repeats_its_edge(corner, size):
    """A crop that begins near the edge sees it: a picture of one colour stays so."""
    spec = ImageSpec(size=size, mean=SPEC.mean, std=SPEC.std)
    picture = np.full((90, 120, 3), 128, dtype=np.uint8)
    assert (quick_view(picture, (*corner, 118.0, 88.0), spec) == 128).all()


@settings(deadline=None)
@given(st.floats(0, 200), st.floats(0.05, 40))
def test_a_resize_begins_at_the_nearest_whole_pixel(start, scale):
    found = quick._begin(start, scale)
    if found is not None:
        more, whole = found
        assert abs(start - more * scale - whole) <= max(scale, 1) / 32
        assert -quick._PAD - 1 <= whole <= start + 1
        assert more >= 0


def test_an_axis_of_unchanged_size_is_still_resized():
    image, box = smooth(32, 32), (0.095, 2.539, 30.811, 29.669)  # begins 4 above the picture: 36 rows to 29 + 7
    spec = ImageSpec(size=29, mean=SPEC.mean, std=SPEC.std)
    assert quick._begin(box[1], (box[3] - box[1]) / 29) == (7, -4)
    assert np.abs(quick_view(np.asarray(image), box, spec).astype(int) - train_view(image, box, spec)).mean() < 1


def test_without_a_near_whole_pixel_the_plain_path_is_used(monkeypatch):
    image, box = smooth(90, 70), (3.3, 4.4, 80.1, 66.6)
    plain = train_view(image, box, SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(quick, "_begin", lambda start, scale: None)
        assert np.array_equal(quick_view(np.asarray(image), box, SPEC), plain)
    monkeypatch.setattr(quick, "_vectorised", lambda: False)
    assert np.array_equal(quick_view(np.asarray(image), box, SPEC), plain)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("axis", [0, 1])
def test_one_axis_without_a_near_whole_pixel_is_left_to_pillow(monkeypatch, axis, interpolation):
    """Both sides begin at whole pixels here, so that nothing but the passes' order and rounding differs."""
    spec = ImageSpec(size=32, mean=SPEC.mean, std=SPEC.std, interpolation=interpolation)
    image, box = noise(120, 90), (10.0, 7.0, 100.0, 81.0)
    begin, pillow, seen = quick._begin, quick._by_pillow, []
    monkeypatch.setattr(
        quick, "_begin", lambda start, scale: None if start == (7.0, 10.0)[axis] else begin(start, scale)
    )
    monkeypatch.setattr(quick, "_by_pillow", lambda p, side, spec: seen.append(side.axis) or pillow(p, side, spec))
    off = quick_view(image, box, spec).astype(int) - train_view(Image.fromarray(image), box, spec)
    assert seen == [axis]
    assert np.abs(off).max() <= 1
    assert np.abs(off).mean() < 0.2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_known_before_decoding_and_kept_when_shrunk(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(400, 300), "JPEG", exif=exif, quality=95)
    image = open_header(data, max_pixels=10**6)
    assert upright_size(image) == decode(data).size
    assert shrink(image, 2.9) == 2
    found = pixels(image)
    assert found.size == ((150, 200) if orientation >= 5 else (200, 150))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize(found.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found, int) - np.asarray(upright)).mean() < 1.5
    assert difference(quick_of(data), plain_views(data, "k", (0, 1))).mean() < 1


@pytest.mark.parametrize("odd", [0, 1, 5])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"subsampling": 0}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_every_kind_of_jpeg_may_be_shrunk(mode, options, odd):
    image = smooth(640 + odd, 480 + odd)
    data = encoded(image.convert(mode), "JPEG", quality=95, **options)
    assert shrink(open_header(data, max_pixels=10**6), 480 / (MARGIN * 32)) == 4
    assert difference(quick_of(data), plain_views(data, "k", (0, 1))).mean() < 1.2


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_other_formats_are_never_shrunk(form):
    data = encoded(smooth(640, 480), form)
    image = open_header(data, max_pixels=10**6)
    assert shrink(image, 100) == 1
    assert pixels(image).size == (640, 480)
    assert difference(quick_of(data), plain_views(data, "k", (0, 1))).mean() < 1


def test_a_jpeg_is_shrunk_only_within_the_margin(monkeypatch):
    taken = []
    monkeypatch.setattr(quick, "shrink", lambda image, most: taken.append(shrink(image, most)) or taken[-1])
    for side, factor in ((32, 1), (150, 1), (190, 2), (400, 4), (900, 8)):
        quick_of(encoded(smooth(side, side), "JPEG"))
        assert taken.pop() == factor, side
    assert [shrink(open_header(encoded(smooth(s, 7), "JPEG"), max_pixels=10**6), 99) for s in (7, 8)] == [1, 1]


def test_views_of_one_picture_are_decoded_once(monkeypatch):
    calls = []
    monkeypatch.setattr(quick, "pixels", lambda image: calls.append(1) or pixels(image))
    assert set(quick_of(encoded(smooth(300, 200), "JPEG"), views=range(5))) == set(range(5))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1, "quality": 40}, {"restart_marker_blocks": 4}],
)
@pytest.mark.parametrize("size", [(64, 48), (65, 47), (1, 9)])
def test_a_plain_jpeg_gives_the_pixels_that_pillow_gives(options, size):
    data = encoded(smooth(*size), "JPEG", **options)
    assert np.array_equal(quick._plain_jpeg(open_header(data, max_pixels=10**6), data), np.asarray(decode(data)))


def test_other_files_than_plain_jpegs_are_left_to_pillow():
    turned = Image.Exif()
    turned[0x0112] = 6
    whole = encoded(noise(64, 48), "JPEG")
    others = [encoded(smooth(64, 48).convert(mode), "JPEG") for mode in ("L", "CMYK")]
    for data in (*others, encoded(smooth(64, 48), "JPEG", exif=turned), encoded(smooth(64, 48), "WEBP")):
        assert quick._plain_jpeg(open_header(data, max_pixels=10**6), data) is None
    assert quick._plain_jpeg(open_header(whole, max_pixels=10**6), whole[: len(whole) // 2]) is None


def test_an_undecodable_picture_is_named():
    data = encoded(noise(640, 480), "JPEG")
    for broken, reason in ((data[: len(data) // 2], "truncated_image"), (b"", "empty_image"), (b"x", "not_an_image")):
        with pytest.raises(BadImage, match=reason):
            quick_of(broken)
    with pytest.raises(BadImage, match="too_many_pixels"):
        quick_views(png(), "k", [0], AUGMENTATION, SPEC, max_pixels=10)


def test_an_encoder_gives_nearly_equal_embeddings_for_quick_views(photos):
    """Real photos in their own resolution: one each, and mosaics large enough to be shrunk."""
    spec = ImageSpec(size=128, mean=MEAN, std=STD)
    encoder = EfficientNetLite0(torch.device("cpu"))
    mosaic = Image.new("RGB", (800, 640))
    for place in range(20):
        mosaic.paste(photos[place], (place % 5 * 160, place // 5 * 160))
    for pictures in (photos, [mosaic, ImageOps.mirror(mosaic), ImageOps.flip(mosaic)]):
        data = [encoded(picture, "JPEG", quality=92) for picture in pictures]
        plain = np.concatenate([list(plain_views(d, str(n), [0], spec).values()) for n, d in enumerate(data)])
        ours = np.concatenate([list(quick_of(d, str(n), [0], spec).values()) for n, d in enumerate(data)])
        a, b = (encoder(to_tensor(views, spec))[0] for views in (plain, ours))
        assert torch.nn.functional.cosine_similarity(a, b).min() > 0.999
