"""The true stage: opened only where it belongs, every damage named, killed and finished to the same bytes."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml

from cliprd.artifact import manifest
from cliprd.data.shards import Shard, ShardSet
from cliprd.errors import InputError
from cliprd.models.load import load_encoder
from cliprd.stages import cache, prepare
from cliprd.teacher_cache import TeacherCache
from tests.data.pictures import pairs, write_tar
from tests.teacher_cache import rooms


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    params = rooms.make(folder)
    made = cache.run(params, inputs(folder), folder / "cache")
    return folder, params, made


@pytest.fixture
def copy(room, tmp_path):
    import shutil

    shutil.copytree(room[0], tmp_path / "room")
    return tmp_path / "room", room[1]


def inputs(folder):
    return {"shards": folder / "shards", "teacher": folder / "teacher"}


def changed(params, section, **values):
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


def opened(folder, params, **options):
    return TeacherCache.open(folder / "cache", ShardSet.open(folder / "shards"), params.augmentation, **options)


def test_the_manifest_holds_the_whole_fingerprint(room):
    folder, params, made = room
    encoder, shards = load_encoder(folder / "teacher", params), ShardSet.open(folder / "shards")
    assert made.facts == {
        "format": 2,
        "dtype": "float16",
        "teacher": encoder.id,
        "weights_sha256": encoder.weights_sha256,
        "image": encoder.image.to_dict(),
        "tokenizer": encoder.tokenizer,
        "dim": 24,
        "logit_scale": encoder.logit_scale,
        "views": 2,
        "augmentation": {"version": 1, "scale": [0.3, 1.0], "ratio": [0.75, 4 / 3], "seed": 5},
        "shards": {shard.name: shard.sha256 for shard in shards.shards},
        "samples": rooms.SAMPLES,
        "captions": sum(len(s.captions) for shard in shards.shards for s in shards.read(shard)),
        "made_with": {
            "stage": "distill",
            "fingerprint": manifest.read(folder / "teacher").fingerprint,
            "params": {},
            "inputs": {},
            "facts": {},
        },
    }
    assert set(made.files) == {f"0-{i:05d}.safetensors" for i in range(5)}
    assert made.inputs == {
        "shards": shards.fingerprint,
        "teacher": manifest.verify(folder / "teacher").fingerprint,
    }


def test_open_and_read(room):
    folder, params, made = room
    found = opened(folder, params, encoder=load_encoder(folder / "teacher", params), views=2)
    assert (found.dim, found.views, found.fingerprint) == (24, 2, made.fingerprint)
    assert found.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    shards = ShardSet.open(folder / "shards")
    for shard in shards.shards:
        image, text, captions = found.read(shard)
        samples = list(shards.read(shard))
        assert image.shape == (shard.samples, 2, 24)
        assert text.shape == (shard.samples, max(len(s.captions) for s in samples), 24)
        assert captions.tolist() == [len(s.captions) for s in samples]
        norms = np.linalg.norm(image.astype(np.float64), axis=-1)
        assert np.abs(norms - 1).max() < 1e-3


def test_nothing_to_do_loads_no_teacher(room, monkeypatch):
    folder, params, made = room
    monkeypatch.setattr(cache, "load_encoder", lambda *_: pytest.fail("loaded"))
    assert cache.run(params, inputs(folder), folder / "cache") == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, r"augmentation\.seed = 5, but 6"),
        ({"scale": (0.4, 1.0)}, r"augmentation\.scale = \[0\.3, 1\.0\], but \[0\.4, 1\.0\]"),
        ({"ratio": (1.0, 1.0)}, r"augmentation\.ratio"),
    ],
)
def test_another_augmentation_is_refused(room, change, message):
    folder, params, _ = room
    with pytest.raises(InputError, match=message + r".*Run `cliprd cache`"):
        opened(folder, changed(params, "augmentation", **change))


def test_another_version_of_the_augmentation_is_refused(room, monkeypatch):
    from cliprd.data import augment

    monkeypatch.setattr(augment, "VERSION", 2)
    with pytest.raises(InputError, match=r"augmentation\.version = 1, but 2"):
        opened(*room[:2])


def test_another_number_of_views_is_refused(room):
    with pytest.raises(InputError, match="views = 2, but 3"):
        opened(*room[:2], views=3)


def test_another_teacher_is_refused(room, tmp_path):
    folder, params, _ = room
    other = load_encoder(rooms.write_teacher(tmp_path / "other", seed=2), params)
    with pytest.raises(InputError, match=r"built with teacher = student:\w+, but student:\w+ is asked for"):
        opened(folder, params, encoder=other)
    same = load_encoder(folder / "teacher", params)
    same.weights_sha256 = other.weights_sha256
    with pytest.raises(InputError, match=r"built with weights_sha256 = \w{12}…, but \w{12}…"):
        opened(folder, params, encoder=same)


@pytest.mark.parametrize("fact", ["image", "tokenizer"])
def test_another_preprocessing_is_refused(room, fact):
    from dataclasses import replace

    folder, params, _ = room
    encoder = load_encoder(folder / "teacher", params)
    if fact == "image":
        encoder.image = replace(encoder.image, mean=(0.5, 0.5, 0.5))
    else:
        encoder.tokenizer = "other"
    with pytest.raises(InputError, match="image\\.mean" if fact == "image" else "tokenizer = .*, but other"):
        opened(folder, params, encoder=encoder)


def test_other_shards_are_refused(copy):
    folder, params = copy
    source = folder / "source"
    write_tar(source / "0.tar", pairs(13))
    tree = params.model_copy(update={"data": params.data.model_copy(update={"path": str(source)})})
    prepare.run(tree, {}, folder / "shards")
    with pytest.raises(InputError, match=r"other shards: 0-00000\.tar has sha256 \w{12}…, the cache embeds \w{12}…"):
        opened(folder, params)


@pytest.mark.parametrize("samples", [3, 60])
def test_fewer_or_more_shards_are_refused(copy, samples):
    folder, params = copy
    found, _ = folder / "shards", params
    shards = ShardSet.open(found)
    extra = Shard("0-00005.tar", 1, 1, "ab" * 32)
    more = (*shards.shards, extra) if samples > 26 else shards.shards[:2]
    other = ShardSet(found, shards.fingerprint, more)
    with pytest.raises(
        InputError, match="knows nothing of 0-00005" if samples > 26 else "0-00002.tar, which it embeds"
    ):
        TeacherCache.open(folder / "cache", other, params.augmentation)


@pytest.mark.parametrize(
    "name", ["cache/0-00002.safetensors", "cache/manifest.json", "shards/0-00001.tar", "shards/manifest.json"]
)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
def test_a_flipped_byte_is_found_and_named(copy, name, place):
    folder, params = copy
    path = folder / name
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        opened(folder, params)


def test_a_damaged_file_is_mended_by_running_again(copy, capsys):
    folder, params = copy
    path = folder / "cache/0-00002.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\xff")
    before = (folder / "cache/manifest.json").read_bytes()
    cache.run(params, inputs(folder), folder / "cache")
    assert path.read_bytes() == good
    assert (folder / "cache/manifest.json").read_bytes() == before
    assert "0-00002.safetensors is damaged" in capsys.readouterr().err


def test_a_damaged_teacher_is_refused(copy):
    folder, params = copy
    path = folder / "teacher/open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match=r"open_clip_model\.safetensors is damaged"):
        cache.run(params, inputs(folder), folder / "cache")


def test_an_unfinished_cache_is_refused(copy):
    folder, params = copy
    (folder / "cache/manifest.json").unlink()
    with pytest.raises(InputError, match=r"never finished.*Run `cliprd cache`"):
        opened(folder, params)


@pytest.mark.integration
def test_sigkill_and_again(room, tmp_path):
    """Killed by the system behind the third file, rerun: whole files are left alone, the end is the same bytes."""
    folder, params, _ = room
    tree = params.model_dump(mode="json", include={"augmentation", "cache"})
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(tree))
    arguments = ["cache", "--params", str(tmp_path / "p.yaml"), "--shards", str(folder / "shards")]
    arguments += ["--teacher", str(folder / "teacher"), "--output", str(tmp_path / "out")]
    killer = (
        "import os, signal, sys, cliprd.teacher_cache.build; from cliprd.cli import main\n"
        "room = sys.modules['cliprd.teacher_cache.build']; real = room.write_rows\n"
        "def write(path, *rest):\n"
        "    if path.name == '0-00003.safetensors':\n"
        "        (path.parent / '.0-00003.safetensors.x.tmp').write_bytes(b'part')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(path, *rest)\n"
        "room.write_rows = write; sys.exit(main(sys.argv[1:]))"
    )
    dead = subprocess.run([sys.executable, "-c", killer, *arguments], capture_output=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    out = tmp_path / "out"
    assert not (out / "manifest.json").exists()
    left = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*.safetensors")}
    assert sorted(left) == [f"0-{i:05d}.safetensors" for i in range(3)]
    cache.run(params, inputs(folder), out)
    assert {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in left} == left
    for path in (folder / "cache").glob("*.safetensors"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert manifest.verify(out).fingerprint == manifest.verify(folder / "cache").fingerprint
    assert not list(out.glob("*.tmp"))
