"""The cache holds what the teacher says live, each crop and caption once, however often the build was interrupted."""

import json
import sys

import numpy as np
import pytest
import torch

from cliprd.data.augment import crop_box, to_tensor, train_view
from cliprd.data.images import BadImage, decode
from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.losses import DistillationLoss, LossWeights
from cliprd.teacher_cache import build
from cliprd.teacher_cache.format import file_name, read_rows
from tests.teacher_cache import rooms

HALF = 2.0**-11  # relative rounding of float16


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    params = rooms.make(folder)
    shards, encoder = ShardSet.open(folder / "shards"), rooms.encoder(folder)
    (folder / "cache").mkdir()
    facts = build(shards, encoder, params, folder / "cache")
    return folder, params, shards, encoder, facts


def live(room, shard, view):
    """What the teacher says of one view of each sample, asked sample by sample."""
    _, params, shards, encoder, _ = room
    found = []
    for sample in shards.read(shard):
        image = decode(sample.image)
        box = crop_box(sample.key, view, *image.size, params.augmentation)
        found.append(encoder.encode_images(to_tensor(train_view(image, box, encoder.image)[None], encoder.image))[0])
    return torch.stack(found)


def test_rows_are_the_teachers_up_to_float16(room):
    folder, _, shards, encoder, facts = room
    assert len(shards.shards) == 5
    captions = 0
    for shard in shards.shards:
        rows = read_rows(folder / "cache" / file_name(shard))
        assert rows.image.shape == (shard.samples, 2, 24)
        for view in range(2):
            said = live(room, shard, view).numpy()
            assert np.abs(rows.image[:, view] - said).max() <= HALF + 1e-6
        for i, sample in enumerate(shards.read(shard)):
            said = encoder.encode_texts(list(sample.captions)).numpy()
            assert rows.captions[i] == len(sample.captions)
            assert np.abs(rows.text[i, : len(sample.captions)] - said).max() <= HALF + 1e-6
            captions += len(sample.captions)
    assert facts["captions"] == captions


def test_views_differ(room):
    folder, _, shards, _, _ = room
    image = read_rows(folder / "cache" / file_name(shards.shards[0])).image.astype(np.float32)
    assert np.abs(image[:, 0] - image[:, 1]).max() > 0.01


def test_a_batchs_loss_from_the_cache_is_that_of_the_live_teacher(room):
    folder, _, shards, encoder, facts = room
    shard = shards.shards[1]
    rows = read_rows(folder / "cache" / file_name(shard))
    torch.manual_seed(0)
    student = torch.randn(2, shard.samples, 24, dtype=torch.float64)
    loss = DistillationLoss(24, 24, weights=LossWeights(task=1, hrd=1, icl=1, fd=2000, vrd=1, vrd_ce=1, xrd=1)).double()
    texts = encoder.encode_texts([sample.captions[0] for sample in shards.read(shard)])
    scale = torch.tensor(14.0, dtype=torch.float64)

    def terms(image, text):
        return loss(*student, scale, image.double(), text.double(), torch.tensor(facts["logit_scale"]).double())

    cached = terms(torch.from_numpy(rows.image[:, 1].copy()), torch.from_numpy(rows.text[:, 0].copy()))
    said = terms(live(room, shard, 1), texts)
    other = terms(live(room, shard, 0), texts)
    assert set(cached) == set(said)
    for name, value in said.items():
        assert cached[name].item() == pytest.approx(value.item(), rel=2e-3), name
    assert any(
        abs(other[name].item() / value.item() - 1) > 5e-3 for name, value in said.items()
    )  # it could have failed


class Counting:
    """The real teacher, which notes what it is asked."""

    def __init__(self, encoder):
        self._encoder, self.texts, self.images = encoder, [], 0

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_images(self, x):
        self.images += len(x)
        assert len(x) <= 8
        return self._encoder.encode_images(x)

    def encode_texts(self, texts):
        assert len(texts) <= 8
        self.texts += texts
        return self._encoder.encode_texts(texts)


def test_identical_captions_are_embedded_once(room, tmp_path):
    _, params, shards, encoder, _ = room
    counting = Counting(encoder)
    build(shards, counting, params, tmp_path)
    found = [text for shard in shards.shards for sample in shards.read(shard) for text in sample.captions]
    assert len(counting.texts) == len(set(counting.texts))
    assert set(counting.texts) == set(found)
    assert len(found) > len(set(found)) + 10
    assert counting.images == 2 * rooms.SAMPLES
    note = json.loads((tmp_path / "volatile/throughput.json").read_text())
    assert (note["images"], note["captions_embedded"]) == (2 * rooms.SAMPLES, len(set(found)))


@pytest.mark.parametrize("budget", [2**20, 5 * 368])
def test_a_build_goes_on_from_whole_files_to_the_same_bytes(room, tmp_path, budget):
    _, params, shards, encoder, facts = room
    whole, folder = tmp_path / "whole", tmp_path / "cut"
    counting = Counting(encoder)
    assert build(shards, counting, params, whole, caption_budget=budget) == facts
    files = {path.name: path.read_bytes() for path in whole.glob("*.safetensors")}
    assert len(files) == 5
    for missing in (["00000"], ["00003", "00004"], ["00001", "00004"], ["00002"], list("01234")):
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            if name.removesuffix(".safetensors") not in missing:
                (folder / name).write_bytes(data)
            else:
                (folder / name).unlink(missing_ok=True)
        kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
        again = Counting(encoder)
        build(shards, again, params, folder, caption_budget=budget)
        assert {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} == files, missing
        assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
        samples = sum(shard.samples for shard in shards.shards if shard.stem in missing)
        assert again.images == 2 * samples


def test_leftovers_that_are_damaged_or_another_teachers_are_made_anew(room, tmp_path):
    folder, params, shards, encoder, _ = room
    good = {path.name: path.read_bytes() for path in (folder / "cache").glob("*.safetensors")}
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
    flipped = bytearray(good["0-00001.safetensors"])
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "0-00001.safetensors").write_bytes(flipped)
    (tmp_path / "0-00003.safetensors").write_bytes(good["0-00003.safetensors"][:-1])
    (tmp_path / "0-00004.safetensors").write_bytes(good["0-00002.safetensors"])  # whole, but of another shard
    counting = Counting(encoder)
    build(shards, counting, params, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == good
    assert counting.images == 2 * sum(shards.shards[i].samples for i in (1, 3, 4))
    rooms.write_teacher(tmp_path / "teacher", seed=2)
    build(shards, rooms.encoder(tmp_path), params, tmp_path)
    for name, data in good.items():
        assert (tmp_path / name).read_bytes() != data


def test_more_views_than_a_batch_holds(room, tmp_path):
    _, params, shards, encoder, _ = room
    more = params.model_copy(update={"cache": params.cache.model_copy(update={"views": 10})})
    build(shards, Counting(encoder), more, tmp_path)
    rows = read_rows(tmp_path / "0-00000.safetensors")
    assert rows.image.shape == (6, 10, 24)
    assert np.abs(rows.image[:, 1] - live(room, shards.shards[0], 1).numpy()).max() <= HALF + 1e-6


def test_a_teacher_that_gives_nan_is_told(room, tmp_path):
    _, params, shards, encoder, _ = room

    class Broken(Counting):
        def encode_images(self, x):
            rows = super().encode_images(x)
            rows[0, 0] = float("nan")
            return rows

    with pytest.raises(InputError, match=r"NaN or Inf for a sample of 0-00000\.tar"):
        build(shards, Broken(encoder), params, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_teacher_of_another_width_is_told(room, tmp_path):
    _, params, shards, encoder, _ = room

    class Narrow(Counting):
        def encode_images(self, x):
            return super().encode_images(x)[:, :-1]

    with pytest.raises(InputError, match=r"gave \(8, 23\), expected \(8, 24\)"):
        build(shards, Narrow(encoder), params, tmp_path)


def test_an_image_that_does_not_decode_is_told(room, tmp_path, monkeypatch):
    def refuse(data, **_):
        raise BadImage("truncated_image", "x")

    monkeypatch.setattr(sys.modules["cliprd.teacher_cache.build"], "decode", refuse)
    _, params, shards, encoder, _ = room
    with pytest.raises(InputError, match=r"0-00000\.tar: sample '000' cannot be decoded: truncated_image"):
        build(shards, encoder, params, tmp_path)
