"""Embedding a task: the same as one at a time with plain open_clip, saved, resumed, checked."""

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from torch import nn

from cliprd.benchmark import embed as embed_module
from cliprd.benchmark.embed import embed, embed_once, load, save
from cliprd.benchmark.prompts import class_prompts, counted_captions, imagenet_templates, templates
from cliprd.benchmark.tasks import load_task
from cliprd.benchmark.towers import Towers, read_projections
from cliprd.data.augment import eval_view, to_tensor
from cliprd.data.images import decode
from cliprd.errors import InputError
from tests.benchmark.tools import classification, picture, retrieval, student, write_tar


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return student(tmp_path_factory.mktemp("student"))


def test_imagenet_templates_are_openais():
    found = imagenet_templates()
    assert len(found) == 80
    assert [t.replace("{c}", "dog") for t in found] == [t("dog") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_protocols_choose_templates_and_captions(tmp_path):
    flags, captions = load_task(classification(tmp_path)), load_task(retrieval(tmp_path))
    assert templates(flags, "standard") == ("a photo of a {c}.", "the {c}")
    assert templates(flags, "paper") == imagenet_templates()
    sizes = [len(own) for own in captions.captions]
    assert counted_captions(captions, "standard").tolist() == list(range(sum(sizes)))
    assert counted_captions(captions, "paper").tolist() == [sum(sizes[:i]) for i in range(len(sizes))]


def test_prompts_are_embedded_once_and_weighted_by_multiplicity():
    found = class_prompts(["cat", "dog"], {"standard": ["a {c}", "the {c}", "a {c}"], "paper": ["a {c}", "{c}!{c}"]})
    assert found.texts == ("a cat", "a dog", "cat!cat", "dog!dog", "the cat", "the dog")
    edges = {
        (found.texts[t], g): w for t, g, w in zip(found.text, found.group, found.weight, strict=True)
    }  # fmt: skip
    assert edges == {
        ("a cat", 0): 2, ("the cat", 0): 1, ("a dog", 1): 2, ("the dog", 1): 1,
        ("a cat", 2): 1, ("cat!cat", 2): 1, ("a dog", 3): 1, ("dog!dog", 3): 1,
    }  # fmt: skip
    assert found.groups == 4


def test_batched_image_embeddings_equal_single_ones(tmp_path, encoder):
    task = load_task(classification(tmp_path, n=23, tars=2))
    found = embed(Towers(encoder), task, ["standard"], batch_size=5)["image"]
    for number, data in task.images():
        pixels = to_tensor(eval_view(decode(data), encoder.image)[None], encoder.image)
        assert found[number] == pytest.approx(encoder.encode_images(pixels)[0].numpy(), abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_classes_are_normalised_means_of_normalised_prompts(tmp_path, encoder):
    task = load_task(classification(tmp_path))
    found = embed(Towers(encoder), task, ["standard", "paper"], batch_size=4)
    for protocol in ("standard", "paper"):
        for number, name in enumerate(task.classnames):
            texts = [t.replace("{c}", name) for t in templates(task, protocol)]
            mean = encoder.encode_texts(texts).mean(dim=0)
            assert found[f"class.{protocol}"][number] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_captions_are_in_the_tasks_order_and_equal_ones_embedded_once(tmp_path, encoder, monkeypatch):
    captions = [["same", "b long long long caption"], ["same"], ["z", "same"]]
    task = load_task(retrieval(tmp_path, captions=captions))
    seen = []
    original = Towers.texts
    monkeypatch.setattr(Towers, "texts", lambda self, texts: seen.extend(texts) or original(self, texts))
    found = embed(Towers(encoder), task, ["standard"], batch_size=2)["text"]
    flat = [caption for own in captions for caption in own]
    expected = torch.cat([encoder.encode_texts([caption]) for caption in flat]).numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert sorted(seen) == sorted(set(flat))


def test_equal_work_gives_equal_bytes_and_intact_files_are_reused(tmp_path, encoder, monkeypatch):
    task = load_task(classification(tmp_path))
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    made = embed_once(one, task, ["standard"], Towers(encoder), batch_size=7)
    embed_once(two, task, ["standard"], Towers(encoder), batch_size=7)
    assert one.read_bytes() == two.read_bytes()
    calls = []
    original = embed_module.embed
    monkeypatch.setattr(embed_module, "embed", lambda *a, **k: calls.append(1) or original(*a, **k))
    again = embed_once(one, task, ["standard"], Towers(encoder), batch_size=7)
    assert not calls
    assert all(np.array_equal(again[name], rows) for name, rows in made.items())
    for change in (lambda d: d[:-1], lambda d: d[:-40] + bytes([d[-40] ^ 1]) + d[-39:], lambda d: b""):
        one.write_bytes(change(two.read_bytes()))  # cut, a flipped bit, empty
        calls.clear()
        embed_once(one, task, ["standard"], Towers(encoder), batch_size=7)
        assert calls
        assert one.read_bytes() == two.read_bytes()


def test_save_and_load(tmp_path):
    rows = {"image": np.arange(6, dtype=np.float32).reshape(3, 2)}
    save(tmp_path / "a", rows)
    assert np.array_equal(load(tmp_path / "a")["image"], rows["image"])
    assert load(tmp_path / "none") is None
    safetensors.torch.save_file({"image": torch.zeros(2)}, tmp_path / "foreign")
    assert load(tmp_path / "foreign") is None


def test_an_image_that_cannot_be_decoded_is_named(tmp_path, encoder):
    folder = classification(tmp_path, tars=1)
    good = [(f"s{i}.{e}", d) for i in range(30) for e, d in (("png", picture(i)), ("cls", b"0"))]
    write_tar(folder / "test" / "0.tar", [*good, ("bad.png", picture(0)[:60]), ("bad.cls", b"1")])
    with pytest.raises(InputError, match=r"flags: image 'bad' cannot be used: truncated_image"):
        embed(Towers(encoder), load_task(folder), ["standard"], batch_size=4)


def test_not_finite_embeddings_are_refused(tmp_path, encoder, monkeypatch):
    task = load_task(classification(tmp_path))
    monkeypatch.setattr(Towers, "images", lambda self, x: (torch.full((len(x), 16), torch.nan),))
    with pytest.raises(InputError, match=r"student:.* gives embeddings that are not finite \(image\)"):
        embed(Towers(encoder), task, ["standard"], batch_size=4)


def test_projections_see_features_before_normalisation(tmp_path, encoder):
    torch.manual_seed(0)
    image, text = nn.Linear(16, 24), nn.Linear(16, 24)
    state = {f"{n}_projection.{p}": t for n, m in (("image", image), ("text", text)) for p, t in m.state_dict().items()}
    safetensors.torch.save_file({**state, "cross_scale": torch.ones(())}, tmp_path / "loss.safetensors")
    found = read_projections(tmp_path, torch.device("cpu"))
    task = load_task(retrieval(tmp_path / "tasks"))
    rows = embed(Towers(encoder, found), task, ["standard"], batch_size=8)
    plain = embed(Towers(encoder), task, ["standard"], batch_size=8)
    assert rows["image"] == pytest.approx(plain["image"], abs=1e-6)
    assert rows["projected.text"].shape == (len(plain["text"]), 24)
    number, data = next(iter(task.images()))
    pixels = to_tensor(eval_view(decode(data), encoder.image)[None], encoder.image)
    with torch.no_grad():
        expected = nn.functional.normalize(image(encoder.model.encode_image(pixels)), dim=-1)[0]
    assert rows["projected.image"][number] == pytest.approx(expected.numpy(), abs=1e-5)


def test_missing_projections_are_none_and_damaged_ones_an_error(tmp_path):
    assert read_projections(tmp_path, torch.device("cpu")) is None
    safetensors.torch.save_file({"cross_scale": torch.ones(())}, tmp_path / "loss.safetensors")
    assert read_projections(tmp_path, torch.device("cpu")) is None
    (tmp_path / "loss.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"loss\.safetensors is damaged"):
        read_projections(tmp_path, torch.device("cpu"))
