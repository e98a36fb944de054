"""Crops: a function of (seed, key, view) alone, distributed as RandomResizedCrop's; views as open_clip's."""

import json
import math
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliprd.data import augment
from cliprd.data.augment import crop_box, eval_view, to_tensor, train_view, view_of
from cliprd.models.image_spec import ImageSpec
from cliprd.params import Augmentation
from tests.data.pictures import noise

SPEC = ImageSpec(size=32, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
sides = st.integers(1, 5000)
GOLDEN_BOXES = {
    ("000000001", 0): (117.82662315551795, 13.76183983947238, 631.6847931136485, 439.0348274532451),
    ("000000001", 1): (19.384454031918604, 9.759788306826554, 462.1661091947577, 476.0627442564886),
    ("cat", 0): (41.00621860453506, 5.021159415020226, 607.6133172987993, 475.211339191449),
}


@st.composite
def augmentations(draw):
    low, high = sorted([draw(st.floats(0.01, 1)), draw(st.floats(0.01, 1))])
    narrow, wide = sorted([draw(st.floats(0.2, 5)), draw(st.floats(0.2, 5))])
    return Augmentation(scale=(low, high), ratio=(narrow, wide), seed=draw(st.integers(0, 2**40)))


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1), st.integers(0, 50), sides, sides, augmentations())
def test_a_box_lies_inside_the_picture_within_scale_and_ratio(key, view, width, height, augmentation):
    left, top, right, bottom = crop_box(key, view, width, height, augmentation)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    share, ratio = w * h / (width * height), w / h
    near = 1e-9
    assert (
        share <= augmentation.scale[1] * (1 + near)
        or augmentation.scale[0] * (1 - near) > share
        or _centred(left, top, right, bottom, width, height)
    )
    assert augmentation.ratio[0] * (1 - near) <= ratio <= augmentation.ratio[1] * (1 + near)
    if not _centred(left, top, right, bottom, width, height):
        assert augmentation.scale[0] * (1 - near) <= share <= augmentation.scale[1] * (1 + near)


def _centred(left, top, right, bottom, width, height):
    """The fallback after ten tries: as large as the ratio allows, in the middle."""
    return math.isclose(left, width - right, abs_tol=1e-6) and math.isclose(top, height - bottom, abs_tol=1e-6)


def test_any_box_can_be_resized():
    for i, (width, height) in enumerate([(1, 1), (1, 50), (50, 1), (3, 2), (64, 64), (2, 4999)]):
        image = Image.fromarray(noise(width, height, seed=i))
        for view in range(20):
            box = crop_box("k", view, width, height, Augmentation(scale=(0.05, 1.0)))
            assert train_view(image, box, SPEC).shape == (32, 32, 3)


def test_golden_boxes():
    """Fixed for ever under VERSION 1: a cache made years ago is replayed by these numbers."""
    assert augment.VERSION == 1
    boxes = {
        (key, view): crop_box(key, view, 640, 480, Augmentation(scale=(0.6, 1.0), seed=seed))
        for key, view, seed in [("000000001", 0, 0), ("000000001", 1, 0), ("cat", 0, 7)]
    }
    for name, box in boxes.items():
        assert box == pytest.approx(GOLDEN_BOXES[name], rel=1e-12)


def test_other_processes_compute_the_same_boxes():
    code = (
        "import json; from cliprd.data.augment import crop_box, view_of; from cliprd.params import Augmentation\n"
        "a = Augmentation(scale=(0.3, 1.0), seed=5)\n"
        "print(json.dumps([[crop_box(f'k{i}', 2, 300, 200 + i, a), view_of(f'k{i}', 9, 4)] for i in range(50)][::-1]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    augmentation = Augmentation(scale=(0.3, 1.0), seed=5)
    here = [[list(crop_box(f"k{i}", 2, 300, 200 + i, augmentation)), view_of(f"k{i}", 9, 4)] for i in range(50)][::-1]
    assert json.loads(out) == here


def test_seed_key_and_view_each_change_the_box():
    base = crop_box("a", 0, 640, 480, Augmentation())
    assert base == crop_box("a", 0, 640, 480, Augmentation())
    assert base != crop_box("b", 0, 640, 480, Augmentation())
    assert base != crop_box("a", 1, 640, 480, Augmentation())
    assert base != crop_box("a", 0, 640, 480, Augmentation(seed=1))


def _kolmogorov(values, low, high):
    values = (np.sort(values) - low) / (high - low)
    return np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()


def test_distribution_is_that_of_random_resized_crop():
    from torchvision.transforms import RandomResizedCrop

    augmentation = Augmentation(scale=(0.2, 0.5), ratio=(0.75, 4 / 3))
    boxes = np.array([crop_box(f"key{i}", 0, 1000, 1000, augmentation) for i in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    limit = 2.2 / math.sqrt(4000)  # Kolmogorov-Smirnov far beyond p = 0.001
    assert _kolmogorov(w * h / 1e6, 0.2, 0.5) < limit
    assert _kolmogorov(np.log(w / h), math.log(0.75), math.log(4 / 3)) < limit
    assert _kolmogorov(boxes[:, 0] / (1000 - w), 0, 1) < limit
    assert _kolmogorov(boxes[:, 1] / (1000 - h), 0, 1) < limit
    # a slender picture, where tries fail and the fallback is taken: the same share of fallbacks and the same means
    ours = np.array([crop_box(f"key{i}", 0, 900, 300, Augmentation(scale=(0.3, 1.0))) for i in range(4000)])
    torch.manual_seed(0)
    image = torch.empty(3, 300, 900)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.3, 1.0], [0.75, 4 / 3]) for _ in range(4000)], float)
    assert np.mean(ours[:, 2] - ours[:, 0]) == pytest.approx(theirs[:, 3].mean(), rel=0.01)
    assert np.mean(ours[:, 3] - ours[:, 1]) == pytest.approx(theirs[:, 2].mean(), rel=0.01)
    assert np.mean(ours[:, 0]) == pytest.approx(theirs[:, 1].mean(), rel=0.03)


def test_view_of_is_uniform_and_changes_with_the_epoch():
    counts = np.bincount([view_of(f"k{i}", e, 4) for i in range(1000) for e in range(4)], minlength=4)
    assert counts.min() > 900
    assert {view_of("k", e, 1) for e in range(10)} == {0}
    assert len({view_of("k", e, 4) for e in range(30)}) == 4


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (32, 32), (65, 33), (200, 150), (33, 32)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_eval_view_is_open_clips(size, interpolation, resize_mode):
    spec = ImageSpec(size=32, mean=SPEC.mean, std=SPEC.std, interpolation=interpolation, resize_mode=resize_mode)
    image = Image.fromarray(noise(*size))
    theirs = open_clip.transform.image_transform(
        32, is_train=False, mean=spec.mean, std=spec.std, interpolation=interpolation, resize_mode=resize_mode
    )
    pixels = eval_view(image, spec)
    assert pixels.dtype == np.uint8
    untouched = open_clip.transform.image_transform(
        32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=resize_mode
    )
    assert np.array_equal((untouched(image) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8), pixels)
    torch.testing.assert_close(to_tensor(pixels[None], spec)[0], theirs(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 1000), (1000, 4), (40, 9000), (9000, 40)])
def test_slender_eval_view_is_open_clips_too(size):
    y, x = np.indices(size[::-1])
    waves = np.dstack([127 + 100 * np.sin(x / 9 + y / 31 + c) for c in range(3)]).astype(np.uint8)
    image = Image.fromarray(waves)
    crop, resize = augment._eval_transform(32, "bicubic")
    difference = np.abs(eval_view(image, SPEC).astype(int) - np.asarray(crop(resize(image))).astype(int))
    assert difference.max() <= 1


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_an_extreme_aspect_ratio_needs_little_memory(resize_mode):
    spec = ImageSpec(size=32, mean=SPEC.mean, std=SPEC.std, resize_mode=resize_mode)
    assert eval_view(Image.fromarray(noise(60_000, 1)), spec).shape == (32, 32, 3)


def test_train_view_of_the_full_picture_is_a_plain_resize():
    image = Image.fromarray(noise(64, 48))
    plain = image.resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(train_view(image, (0, 0, 64, 48), SPEC), np.asarray(plain))


def test_train_view_is_antialiased():
    checker = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    view = train_view(Image.fromarray(np.dstack([checker] * 3)), (0.5, 0.5, 255.3, 255.1), SPEC)
    assert np.abs(view.astype(int) - 127).max() < 12


def test_to_tensor_takes_arrays_and_tensors():
    batch = np.stack([noise(32, 32, seed=i) for i in range(3)])
    out = to_tensor(batch, SPEC)
    assert out.shape == (3, 3, 32, 32)
    assert out.dtype == torch.float32
    assert torch.equal(out, to_tensor(torch.from_numpy(batch), SPEC))
    expected = (batch[1, 5, 6, 2] / 255 - SPEC.mean[2]) / SPEC.std[2]
    assert out[1, 2, 5, 6].item() == pytest.approx(expected, abs=1e-5)


def test_to_tensor_with_out_gives_the_same_values():
    batch = np.stack([noise(32, 32, seed=i) for i in range(3)])
    memory = torch.full((4, 3, 32, 32), 7.0).to(memory_format=torch.channels_last)
    out = to_tensor(batch, SPEC, out=memory)
    assert out.data_ptr() == memory.data_ptr()
    assert torch.equal(out, to_tensor(batch, SPEC))
    assert (memory[3] == 7).all()
