"""The stage: quarantine with reasons, the limit, determinism, a kill at any shard."""

import hashlib
import io
import json
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

from cliprd.artifact import manifest
from cliprd.data.images import decode
from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.stages import prepare
from tests.data.pictures import bomb, encoded, noise, pairs, png, with_orientation, write_tar


def run(path, output, **options):
    data = {"path": str(path), **options}
    return prepare.run(Params.model_validate({"data": data}), {}, output)


def digests(folder):
    """What is in a folder: bytes of its files, and its manifest but for the code version."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    return files | {"manifest.json": manifest.verify(folder).fingerprint}


@pytest.fixture
def ills(tmp_path):
    """A tar with every ill, and another that repeats a sample of the first."""
    good = pairs(3)
    bad = [
        ("cut.png", png(width=100)[:2000]),
        ("cut.txt", b"x"),
        ("bomb.png", bomb()),
        ("bomb.txt", b"x"),
        ("page.jpg", b"<html>404</html>"),
        ("page.txt", b"x"),
        ("void.jpg", b""),
        ("void.txt", b"x"),
        ("mute.png", png()),
        ("blank.png", png()),
        ("blank.txt", b" \n\t\n"),
        ("latin.png", png()),
        ("latin.txt", "caf\xe9".encode("latin-1")),
        ("json.png", png()),
        ("json.json", b"{"),
        ("words.txt", b"no image"),
        ("float.tiff", encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")),
        ("float.txt", b"x"),
    ]
    write_tar(tmp_path / "source/00000.tar", good + bad)
    write_tar(tmp_path / "source/00001.tar", [*pairs(1, 1), *pairs(2, 50)])
    return tmp_path / "source"


REASONS = {
    "cut": "truncated_image",
    "bomb": "too_many_pixels",
    "page": "unsupported_format",
    "void": "empty_image",
    "mute": "missing_caption",
    "blank": "empty_caption",
    "latin": "caption_not_utf8",
    "json": "broken_json",
    "words": "missing_image",
    "float": "unsupported_mode",
    "000000001": "duplicate",
}


def test_every_ill_has_its_reason(ills, tmp_path):
    made = run(ills, tmp_path / "out", max_bad_fraction=1.0)
    lines = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert {line["key"]: line["reason"] for line in lines} == REASONS
    assert [line["key"] for line in lines] == list(REASONS)  # in the order of the source
    assert all(set(line) == {"source", "key", "reason", "detail"} for line in lines)
    assert lines[-1]["source"] == f"{ills}/00001.tar:000000001"
    told = made.facts.pop("sources")
    assert [(part["name"], part["samples"], part["rejected"]) for part in told] == [
        ("00000.tar", 3, 10),
        ("00001.tar", 2, 1),
    ]
    assert made.facts == {
        "samples": 5,
        "captions": 5,
        "shards": 2,
        "rejected": 11,
        "reasons": dict(Counter(REASONS.values())),
    }
    shards = ShardSet.open(tmp_path / "out")
    kept = [sample for shard in shards.shards for sample in shards.read(shard)]
    assert [sample.key for sample in kept] == [f"{i:09d}" for i in (0, 1, 2, 50, 51)]
    assert kept[1].captions == ("picture 1 of noise",)  # the first of the two


def test_too_many_bad_ones_fail_with_counts_and_a_remedy(ills, tmp_path):
    with pytest.raises(InputError) as caught:
        run(ills, tmp_path / "out", max_bad_fraction=0.5)
    text = str(caught.value)
    assert "11 of 16 samples are bad" in text
    assert "1 truncated_image" in text
    assert "data.max_bad_fraction = 0.5" in text
    assert str(tmp_path / "out/rejected.jsonl") in text
    assert len((tmp_path / "out/rejected.jsonl").read_text().splitlines()) == 11
    assert not (tmp_path / "out/manifest.json").exists()
    run(ills, tmp_path / "out", max_bad_fraction=11 / 16)  # exactly the limit is allowed


def test_nothing_usable(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.txt", b"y")])
    with pytest.raises(InputError, match=r"no usable sample \(1 not_an_image\)"):
        run(tmp_path / "a.tar", tmp_path / "out", max_bad_fraction=1.0)


def test_what_is_stored(tmp_path):
    plain = {
        "jpeg": ("jpg", encoded(noise(), "JPEG")),
        "grey": ("jpg", encoded(noise(channels=1), "JPEG")),
        "webp": ("webp", encoded(noise(), "WEBP")),
        "png": ("png", png()),
    }
    mended = {
        "cmyk": encoded(Image.new("CMYK", (9, 9), (1, 2, 3, 4)), "JPEG"),
        "alpha": encoded(Image.new("RGBA", (9, 9), (1, 2, 3, 4))),
        "deep": encoded(noise(channels=1, depth=16)),
        "turned": with_orientation(6),
        "moving": encoded(Image.new("RGB", (8, 8)), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), 9)]),
        "bmp": encoded(noise(), "BMP"),
    }
    members = [(f"{key}.{ext}", data) for key, (ext, data) in plain.items()]
    members += [(f"{key}.jpg", data) for key, data in mended.items()]
    members = [m for member in members for m in (member, (member[0].split(".")[0] + ".txt", b"x"))]
    run(write_tar(tmp_path / "a.tar", members), tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    stored = {sample.key: sample for sample in shards.read(shards.shards[0])}
    for key, (extension, data) in plain.items():
        assert (stored[key].image, stored[key].extension) == (data, extension)
    for key, data in mended.items():
        image = Image.open(io.BytesIO(stored[key].image))
        assert (image.format, image.mode, stored[key].extension) == ("PNG", "RGB", "png")
        assert not image.getexif()
        assert np.array_equal(np.asarray(image), np.asarray(decode(data)))


def test_max_side(tmp_path):
    photo, drawing = encoded(noise(200, 100), "JPEG"), png(width=90, height=120)
    members = [("a.jpg", photo), ("a.txt", b"x"), ("b.png", drawing), ("b.txt", b"x"), *pairs(1)]
    run(write_tar(tmp_path / "a.tar", members), tmp_path / "out", max_side=60)
    shards = ShardSet.open(tmp_path / "out")
    a, b, small = shards.read(shards.shards[0])
    assert [(decode(s.image).size, s.extension) for s in (a, b)] == [((60, 30), "jpg"), ((45, 60), "png")]
    assert small.image == png(seed=0, width=20, height=16)


def test_captions_are_cleaned(tmp_path):
    text = "﻿one  cat \r\n\r\ntwo\tcats\none cat\n".encode()
    run(write_tar(tmp_path / "a.tar", [("a.png", png()), ("a.txt", text)]), tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    assert next(shards.read(shards.shards[0])).captions == ("one cat", "two cats")


@pytest.mark.parametrize("kind", ["csv", "folder"])
def test_other_sources_end_in_the_same_pairs(tmp_path, kind):
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.png").write_bytes(png(i))
        (source / f"{i}.txt").write_text(f"caption {i}")
    table = tmp_path / "source.csv"
    table.write_text("filepath\ttitle\n" + "".join(f"source/{i}.png\tcaption {i}\n" for i in range(3)))
    run(table if kind == "csv" else source, tmp_path / "out", kind=kind)
    shards = ShardSet.open(tmp_path / "out")
    found = [(sample.image, sample.captions) for sample in shards.read(shards.shards[0])]
    assert found == [(png(i), (f"caption {i}",)) for i in range(3)]


def test_the_same_source_gives_the_same_bytes_and_is_not_packed_twice(ills, tmp_path, monkeypatch):
    run(ills, tmp_path / "a", max_bad_fraction=1.0, samples_per_shard=2)
    run(ills, tmp_path / "b", max_bad_fraction=1.0, samples_per_shard=2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not list((tmp_path / "a").glob(".*"))
    monkeypatch.setattr(prepare, "pack", lambda *_: pytest.fail("packed again"))
    run(ills, tmp_path / "a", max_bad_fraction=1.0, samples_per_shard=2)


def test_a_changed_source_is_packed_anew(tmp_path):
    write_tar(tmp_path / "s/0.tar", pairs(3))
    first = run(tmp_path / "s", tmp_path / "out")
    write_tar(tmp_path / "s/0.tar", pairs(3, start=1))
    assert run(tmp_path / "s", tmp_path / "out").fingerprint != first.fingerprint


def test_a_stopped_run_goes_on_without_decoding_again(ills, tmp_path, monkeypatch):
    options = {"max_bad_fraction": 1.0, "samples_per_shard": 2}
    run(ills, tmp_path / "whole", **options)
    real, calls = prepare.write_shard, []

    def dying(path, samples):
        if path.name == "00000-00001.tar":
            raise KeyboardInterrupt
        real(path, samples)

    monkeypatch.setattr(prepare, "write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        run(ills, tmp_path / "out", **options)
    monkeypatch.setattr(prepare, "write_shard", real)
    inode = (tmp_path / "out/00000-00000.tar").stat().st_ino
    pack = prepare.pack
    monkeypatch.setattr(prepare, "pack", lambda raw, data: calls.append(raw.key) or pack(raw, data))
    run(ills, tmp_path / "out", **options)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert (tmp_path / "out/00000-00000.tar").stat().st_ino == inode
    assert "000000000" not in calls
    assert len(calls) == 16 - 2


@pytest.mark.parametrize("damage", ["flip", "remove", "note"])
def test_leftovers_that_are_not_whole_are_not_believed(tmp_path, monkeypatch, damage):
    write_tar(tmp_path / "s/0.tar", pairs(6))
    run(tmp_path / "s", tmp_path / "whole", samples_per_shard=2)
    monkeypatch.setattr(prepare, "write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", tmp_path / "out", samples_per_shard=2)
    monkeypatch.undo()
    path = tmp_path / "out" / (".progress/0-00001.tar.json" if damage == "note" else "0-00001.tar")
    if damage == "remove":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 8
        path.write_bytes(data)
    if damage == "note":
        path.write_bytes(path.read_bytes()[:20])
    run(tmp_path / "s", tmp_path / "out", samples_per_shard=2)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.integration
def test_sigkill_and_again(tmp_path):
    """Killed by the system in the middle, the command goes on and ends in the bytes of an undisturbed run."""
    write_tar(tmp_path / "s/0.tar", pairs(300))
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"data": {"path": str(tmp_path / "s"), "samples_per_shard": 5}}))
    command = [sys.executable, "-m", "cliprd.cli", "prepare", "--params", str(tmp_path / "p.yaml"), "--output"]
    killer = (
        "import os, signal, sys; from cliprd.stages import prepare; from cliprd.cli import main\n"
        "real = prepare.write_shard\n"
        "def write(path, samples):\n"
        "    if path.name == '0-00030.tar':\n"
        "        (path.parent / '.0-00030.tar.x.tmp').write_bytes(b'part'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(path, samples)\n"
        "prepare.write_shard = write; main(sys.argv[1:])"
    )
    out = tmp_path / "out"
    dead = subprocess.run([sys.executable, "-c", killer, *command[3:], str(out)], capture_output=True)
    assert dead.returncode == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    inodes = {path.name: path.stat().st_ino for path in out.glob("*.tar")}
    assert len(inodes) == 30
    again = subprocess.run([*command, str(out)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    run(tmp_path / "s", tmp_path / "whole", samples_per_shard=5)
    assert digests(out) == digests(tmp_path / "whole")
    assert {name: (out / name).stat().st_ino for name in inodes} == inodes
