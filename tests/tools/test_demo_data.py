"""The committed images: whole, small enough, and no benchmark image (or anything that looks like one) is trained on."""

import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo"
TOOL = ROOT / "tools" / "demo_data"
TASKS = ["fashion_mnist", "fluent_emoji", "openclipart_captions", "tuxpaint_captions", "tuxpaint_photos"]

sys.path.insert(0, str(TOOL))
hashing, items, packages, pictures, writing = (
    importlib.import_module(name) for name in ("hashing", "items", "packages", "pictures", "writing")
)


def members(path: Path) -> dict[str, dict[str, bytes]]:
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            key, _, extension = entry.name.partition(".")
            assert extension not in samples.setdefault(key, {}), entry.name
            samples[key][extension] = tar.extractfile(entry).read()
    return samples


def picture(sample: dict[str, bytes]) -> Image.Image:
    return pictures.decode(sample.get("webp") or sample["png"])


@pytest.fixture(scope="module")
def training():
    samples: dict[str, dict[str, bytes]] = {}
    for tar in sorted((DEMO / "train").iterdir()):
        found = members(tar)
        assert 1000 <= len(found) <= 3000
        assert not samples.keys() & found.keys()
        samples |= found
    return samples


@pytest.fixture(scope="module")
def trained(training):
    return [picture(sample) for sample in training.values()]


@pytest.fixture(scope="module")
def benchmark():
    return {task: members(DEMO / "benchmark" / task / "test" / "0.tar") for task in TASKS}


def hashes(images) -> np.ndarray:
    return np.stack([hashing.dhash(image) for image in images])


def resized(image: Image.Image) -> Image.Image:
    """As a second copy of a picture would come: other size, other format, other quality."""
    buffer = io.BytesIO()
    image.resize((64, 64), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def test_every_file_is_the_one_that_was_built():
    listed = dict(reversed(line.split("  ")) for line in (DEMO / "SHA256SUMS").read_text().splitlines())
    found = [p for p in DEMO.rglob("*") if p.is_file() and not any(q.is_symlink() for q in p.parents)]
    assert set(listed) == {p.relative_to(DEMO).as_posix() for p in found} - {"SHA256SUMS"}
    for name, expected in listed.items():
        assert hashlib.sha256((DEMO / name).read_bytes()).hexdigest() == expected, name


def test_size_and_counts(training, benchmark):
    assert sum(p.stat().st_size for p in DEMO.rglob("*") if p.is_file() and not p.is_symlink()) < 20 * 2**20
    assert len(training) >= 7000
    counts = json.loads((DEMO / "counts.json").read_text())
    assert sum(counts["train"].values()) == len(training)
    assert counts["benchmark"] == {task: len(samples) for task, samples in benchmark.items()}
    attribution = (DEMO / "ATTRIBUTION.md").read_text()
    for number in (*counts["train"].values(), *counts["benchmark"].values(), len(training)):
        assert f" {number} " in attribution.replace("\n", " \n ")
    for package in packages.PACKAGES.values():
        assert f"{package.name} {package.version} | {package.licence}" in attribution


def test_every_sample_has_a_picture_and_captions(training, trained):
    for key, sample in training.items():
        assert set(sample) == {"webp", "txt"}, key
        assert all(line.strip() for line in sample["txt"].decode().split("\n")), key
    assert {image.size for image in trained} == {(64, 64)}


def test_no_benchmark_image_is_trained_on(training, trained, benchmark):
    digests = {hashlib.sha256(sample["webp"]).digest() for sample in training.values()}
    tested = [sample for samples in benchmark.values() for sample in samples.values()]
    assert not digests & {hashlib.sha256(sample.get("webp") or sample["png"]).digest() for sample in tested}
    assert not training.keys() & {key for samples in benchmark.values() for key in samples}
    keys, near = list(training), hashing.near_pairs(hashes(trained), hashes(picture(sample) for sample in tested))
    assert not near, [(keys[i], distance) for i, _, distance in near[:5]]


def test_no_variant_of_a_held_out_clip_art_is_trained_on(training, trained, benchmark):
    held = benchmark["openclipart_captions"]
    assert not hashing.variants(trained, [picture(sample) for sample in held.values()])
    families = {items.family(key) for key in training}
    assert not [key for key in held if items.family(key) in families]


def test_the_detector_finds_a_planted_near_duplicate(benchmark):
    for task in ("tuxpaint_photos", "fluent_emoji", "openclipart_captions"):
        originals = [picture(sample) for sample in list(benchmark[task].values())[:40]]
        pairs = hashing.near_pairs(hashes(originals), hashes(resized(image) for image in originals))
        assert len({i for i, j, _ in pairs if i == j}) >= 38, task
        assert len(pairs) < 80, task  # and it does not call everything near


def test_the_detector_of_variants_finds_a_mirror_image_and_another_colour(benchmark):
    originals = [picture(sample) for sample in list(benchmark["openclipart_captions"].values())[:60]]
    mirrored = [resized(ImageOps.mirror(image)) for image in originals]
    tinted = [Image.merge("RGB", [band.point(lambda v: v // 2 + 90) for band in image.split()]) for image in originals]
    for changed in (mirrored, tinted):
        found = hashing.variants(originals, changed)
        assert len({i for i, j in found if i == j}) >= 54
        assert len(found) < 120


@pytest.mark.parametrize("task", ["openclipart_captions", "tuxpaint_captions"])
def test_captions_tell_images_apart(benchmark, task):
    captions = [sample["txt"].decode() for sample in benchmark[task].values()]
    assert len({caption.lower() for caption in captions}) == len(captions)
    assert all(len(caption) > 2 and "\n" not in caption and "&" not in caption for caption in captions)


def test_gpl_images_are_apart_and_labelled():
    assert "GNU GENERAL PUBLIC LICENSE" in (DEMO / "gpl-2" / "LICENSE").read_text()
    assert "Bill Kendrick" in (DEMO / "gpl-2" / "copyright").read_text()
    assert "Changed in" in (DEMO / "gpl-2" / "README.md").read_text()
    for task in ("tuxpaint_photos", "tuxpaint_captions"):
        link = DEMO / "benchmark" / task
        assert link.is_symlink()
        assert link.resolve() == (DEMO / "gpl-2" / task).resolve()
    for tar in DEMO.rglob("*.tar*"):  # and no stamp lies anywhere else
        if not tar.resolve().is_relative_to((DEMO / "gpl-2").resolve()):
            assert not [key for key in members(tar) if key.startswith("tuxpaint")], tar


def test_licences_that_ask_for_their_text_have_it():
    for name in ("emoji-data", "fashion-mnist", "fluent-emoji"):
        text = " ".join((DEMO / "licences" / f"{name}.txt").read_text().split())
        assert "this permission notice shall be included" in text
        assert "Permission is hereby granted, free of charge" in text


@pytest.mark.parametrize("task", TASKS)
def test_clip_benchmarks_own_loader_reads_every_task(task):
    from clip_benchmark.datasets.builder import build_wds_dataset

    folder = DEMO / "benchmark" / task
    dataset = build_wds_dataset(task, transform=None, split="test", data_dir=str(folder))
    samples = list(dataset)
    counts = json.loads((DEMO / "counts.json").read_text())["benchmark"]
    assert len(samples) == counts[task]
    if (folder / "classnames.txt").exists():
        assert {target for _, target in samples} == set(range(len(dataset.classes)))
        assert len(set(dataset.classes)) == len(dataset.classes)
        assert all("{c}" in template for template in dataset.templates)
    else:
        assert all(captions and all(captions) for _, captions in samples)


def test_transparent_images_come_on_white_padded_to_a_square(tmp_path):
    drawing = Image.new("RGBA", (300, 100), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).ellipse((50, 10, 250, 90), fill=(200, 0, 0, 255))
    drawing.save(tmp_path / "drawing.png")
    image = pictures.square(tmp_path / "drawing.png", 64)
    assert (image.size, image.mode) == ((64, 64), "RGB")
    pixels = np.asarray(image).astype(int)
    assert (pixels[0] >= 250).all()
    assert (pixels[-1] >= 250).all()
    assert abs(pixels[32, 32] - [200, 0, 0]).max() <= 3
    assert pixels[32, 3:61, 1].max() < 60  # cut to what can be seen: the drawing spans the width


def test_empty_and_huge_images_are_left_out(tmp_path):
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "empty.png")
    Image.new("1", (5000, 4000)).save(tmp_path / "huge.png")
    assert pictures.square(tmp_path / "empty.png", 64) is None
    assert pictures.square(tmp_path / "huge.png", 64) is None


@pytest.mark.parametrize("compress", [False, True])
def test_tars_depend_on_their_contents_only(tmp_path, compress):
    files = [("a.webp", b"image"), ("a.txt", "größe".encode())]
    for name in ("one", "two"):
        writing.write_tar(tmp_path / name, files, compress=compress)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert members(tmp_path / "one") == {"a": {"webp": b"image", "txt": "größe".encode()}}


def test_titles_are_unescaped_twice_and_file_names_become_words():
    assert items.clean("Tom &amp;amp; Jerry\n &amp;quot;cats&amp;quot;") == 'Tom & Jerry "cats"'
    assert items.words("flyingCarrot_01") == "flying carrot"
    assert (
        items.family("openclipart-food-apple-bw-2")
        == items.family("openclipart-food-apple")
        == "openclipart-food-apple"
    )


def test_a_damaged_package_is_refused(tmp_path):
    package = packages.PACKAGES["tuxpaint"]
    (tmp_path / package.archive).write_bytes(b"not the package")
    with pytest.raises(SystemExit, match=r"has sha256 .*, expected 6db6c1bf"):
        packages.obtain(package, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [package.archive]


def test_a_folder_of_someone_else_is_never_replaced(tmp_path):
    mine = tmp_path / "home"
    mine.mkdir()
    (mine / "thesis.tex").write_text("three years")
    command = [sys.executable, "build.py", "--packages", tmp_path / "packages", "--output", mine]
    done = subprocess.run(command, cwd=TOOL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "was not written by this tool" in done.stderr
    assert (mine / "thesis.tex").read_text() == "three years"


@pytest.mark.integration
@pytest.mark.skipif(
    "CLIPRD_DEMO_PACKAGES" not in os.environ,
    reason="rebuilding needs 500 MB of packages: name a folder for them in CLIPRD_DEMO_PACKAGES",
)
def test_a_rebuild_gives_the_same_bytes(tmp_path):
    folder = Path(os.environ["CLIPRD_DEMO_PACKAGES"]).resolve()
    command = [sys.executable, "build.py", "--packages", folder, "--output", tmp_path / "demo"]
    subprocess.run(command, cwd=TOOL, check=True)
    assert (tmp_path / "demo" / "SHA256SUMS").read_text() == (DEMO / "SHA256SUMS").read_text()
    for line in (DEMO / "SHA256SUMS").read_text().splitlines():
        expected, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "demo" / name).read_bytes()).hexdigest() == expected, name
