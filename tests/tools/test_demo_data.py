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
from PIL import Image

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo"
TASKS = ["fashion_mnist", "fluent_emoji", "openclipart_captions", "tuxpaint_captions", "tuxpaint_photos"]

sys.path.insert(0, str(ROOT / "tools" / "demo_data"))
hashing = importlib.import_module("hashing")


def members(path: Path) -> dict[str, dict[str, bytes]]:
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            key, _, extension = entry.name.partition(".")
            samples.setdefault(key, {})[extension] = tar.extractfile(entry).read()
    return samples


def picture(sample: dict[str, bytes]) -> Image.Image:
    return Image.open(io.BytesIO(sample.get("webp") or sample["png"]))


@pytest.fixture(scope="module")
def training():
    return {key: sample for tar in sorted((DEMO / "train").iterdir()) for key, sample in members(tar).items()}


@pytest.fixture(scope="module")
def benchmark():
    return {task: members(DEMO / "benchmark" / task / "test" / "0.tar") for task in TASKS}


def hashes(samples) -> np.ndarray:
    return np.stack([hashing.dhash(picture(sample)) for sample in samples])


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
        assert str(number) in attribution


def test_every_sample_has_a_picture_and_captions(training):
    for key, sample in training.items():
        assert set(sample) == {"webp", "txt"}, key
        assert all(line.strip() for line in sample["txt"].decode().split("\n")), key
    sizes = {picture(sample).size for sample in list(training.values())[::50]}
    assert sizes == {(64, 64)}


def test_no_benchmark_image_is_trained_on(training, benchmark):
    trained = {hashlib.sha256(sample["webp"]).digest() for sample in training.values()}
    tested = [sample for samples in benchmark.values() for sample in samples.values()]
    assert not trained & {hashlib.sha256(sample.get("webp") or sample["png"]).digest() for sample in tested}
    keys, near = list(training), hashing.near_pairs(hashes(training.values()), hashes(tested))
    assert not near, [(keys[i], distance) for i, _, distance in near[:5]]


def test_the_detector_finds_a_planted_near_duplicate(benchmark):
    originals = [picture(s).convert("RGB") for s in list(benchmark["tuxpaint_photos"].values())[:40]]
    planted = []
    for image in originals:
        buffer = io.BytesIO()
        image.resize((64, 64), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
        planted.append(Image.open(buffer))
    pairs = hashing.near_pairs(
        np.stack([hashing.dhash(image) for image in originals]), np.stack([hashing.dhash(image) for image in planted])
    )
    found = {i for i, j, _ in pairs if i == j}
    assert len(found) >= 38
    assert len(pairs) < 60  # and it does not call everything near


def test_gpl_images_are_apart_and_labelled():
    assert "GNU GENERAL PUBLIC LICENSE" in (DEMO / "gpl-2" / "LICENSE").read_text()
    for task in ("tuxpaint_photos", "tuxpaint_captions"):
        link = DEMO / "benchmark" / task
        assert link.is_symlink()
        assert link.resolve() == (DEMO / "gpl-2" / task).resolve()


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
        assert all("{c}" in template for template in dataset.templates)
    else:
        assert all(captions and all(captions) for _, captions in samples)


@pytest.mark.skipif(
    "CLIPRD_DEMO_PACKAGES" not in os.environ,
    reason="rebuilding needs 470 MB of packages: name a folder for them in CLIPRD_DEMO_PACKAGES",
)
def test_a_rebuild_gives_the_same_bytes(tmp_path):
    command = [
        sys.executable,
        "build.py",
        "--packages",
        os.environ["CLIPRD_DEMO_PACKAGES"],
        "--output",
        tmp_path / "demo",
    ]
    subprocess.run(command, cwd=ROOT / "tools" / "demo_data", check=True)
    assert (tmp_path / "demo" / "SHA256SUMS").read_text() == (DEMO / "SHA256SUMS").read_text()
