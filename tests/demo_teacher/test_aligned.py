import json
import math

import pytest
import safetensors.torch
import torch

from cliprd import params
from cliprd.demo_teacher import aligned, train
from cliprd.demo_teacher.aligned import AlignedTeacher, Backbones
from cliprd.demo_teacher.heads import AlignedHeads, conse
from cliprd.demo_teacher.train import CaptionedFeatures, train_heads
from cliprd.errors import DivergedError, InputError
from cliprd.models.encoder import state_sha256

SETTINGS = params.Aligned(dim=16, hidden=32, epochs=20, batch_size=32, image_size=32)


def made_up(count=96, concepts=12, seed=0):
    """Images and captions of a few concepts; two thirds of each concept's captions are shared by all its images."""
    dice = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=dice)

    centre, meaning = normal(concepts, 1280).clamp(min=0), torch.nn.functional.normalize(normal(concepts, 384), dim=1)
    concept = torch.arange(count) % concepts
    captions = [(f"c{c}", f"C{c}", f"only {i}") for i, c in enumerate(concept.tolist())]
    distinct = sorted({text for several in captions for text in several})
    of = [int(text[1:]) if text[0] in "cC" else int(text.split()[1]) % concepts for text in distinct]
    texts = torch.nn.functional.normalize(meaning[of] + 0.02 * normal(len(distinct), 384), dim=1)
    names = torch.nn.functional.normalize(normal(1000, 384), dim=1)
    return CaptionedFeatures(
        pooled=(centre[concept] + 0.3 * normal(count, 1280)).clamp(min=0)[:, None],
        conse=torch.nn.functional.normalize(normal(count, 384), dim=1)[:, None],
        captions=captions,
        distinct=distinct,
        texts=texts,
        rows=normal(1000, 1280) * 0.1,
        names=names,
    )


def test_conse_is_the_weighted_mean_of_the_top_ten():
    names = torch.nn.functional.normalize(torch.randn(1000, 384), dim=1)
    logits = torch.randn(4, 1000) * 3
    found = conse(logits, names)
    for row, probability in zip(found, logits.softmax(1), strict=True):
        best = probability.argsort(descending=True)[:10]
        mean = sum(probability[i] * names[i] for i in best)
        torch.testing.assert_close(row, mean / mean.norm())


def test_untrained_heads_are_the_sentence_space():
    pairs = made_up()
    heads = AlignedHeads(384, 32, 0.3)
    heads.fit(pairs.pooled[:, 0], pairs.texts)
    heads.eval()
    with torch.no_grad():
        text, image = heads.text(pairs.texts), heads.image(pairs.pooled[:, 0], pairs.conse[:, 0])
        torch.testing.assert_close(text @ text.T, pairs.texts @ pairs.texts.T, rtol=0, atol=1e-5)
        cosine = (image * torch.nn.functional.normalize(heads.shared(pairs.conse[:, 0]), dim=1)).sum(1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))
        few = AlignedHeads(64, 32, 0.0)
        few.fit(pairs.pooled[:, 0], pairs.texts)
        kept = few.eval().text(pairs.texts)
        assert (kept @ kept.T - pairs.texts @ pairs.texts.T).abs().mean() < 0.1


def test_a_wider_space_than_the_sentences_works():
    pairs = made_up()
    heads, _ = train_heads(pairs, SETTINGS.model_copy(update={"dim": 512, "epochs": 1}))
    assert heads.text(pairs.texts).shape[1] == 512


def test_training_brings_unseen_images_to_their_concept():
    pairs, new = made_up(), made_up(seed=0, count=192)
    heads, facts = train_heads(pairs, SETTINGS)
    assert facts["pairs"] == 96
    assert facts["steps"] == 20 * 3
    image = heads.image(new.pooled[96:, 0], new.conse[96:, 0])
    words = heads.text(torch.stack([new.texts[new.distinct.index(f"c{c}")] for c in range(12)]))
    assert ((image @ words.T).argmax(1) == torch.arange(96) % 12).float().mean() > 0.8  # chance is 1/12
    assert not any(parameter.requires_grad for parameter in heads.parameters())
    assert not heads.training
    assert 1 < float(heads.scale) <= 100


def test_the_seed_decides_and_the_global_generator_stays():
    pairs = made_up()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = state_sha256(train_heads(pairs, SETTINGS)[0].state_dict())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert state_sha256(train_heads(pairs, SETTINGS)[0].state_dict()) == first
    assert state_sha256(train_heads(pairs, SETTINGS.model_copy(update={"seed": 1}))[0].state_dict()) != first


def test_shared_captions_are_positives_never_negatives():
    captions = torch.tensor([[0, 1], [1, 2], [3, 3], [2, 2]])
    chosen = torch.tensor([0, 1, 3, 2])
    expected = torch.tensor(
        [
            [1, 1, 0, 0, 0],  # image 0 also has caption 1, chosen for image 1
            [1, 1, 0, 1, 0],  # image 1 also has caption 2; and image 0 shares the caption chosen for image 1
            [0, 0, 1, 0, 0],
            [0, 1, 0, 1, 0],
            [0, 0, 0, 0, 1],  # a class prototype
        ],
        dtype=torch.bool,
    )
    assert torch.equal(train._positives(captions, chosen, 1), expected)


def test_the_loss_is_cross_entropy_with_spread_targets():
    logits = torch.randn(5, 5, dtype=torch.float64)
    positive = torch.eye(5, dtype=torch.bool)
    diagonal = torch.arange(5)
    plain = 0.5 * (
        torch.nn.functional.cross_entropy(logits, diagonal) + torch.nn.functional.cross_entropy(logits.T, diagonal)
    )
    torch.testing.assert_close(train._loss(logits, positive), plain)
    positive[0, 2] = positive[2, 0] = positive[3, 0] = True
    soft = positive.double()
    rows = torch.nn.functional.cross_entropy(logits, soft / soft.sum(1, keepdim=True))
    columns = torch.nn.functional.cross_entropy(logits.T, (soft / soft.sum(0, keepdim=True)).T)
    torch.testing.assert_close(train._loss(logits, positive), 0.5 * (rows + columns))


def test_one_pair_and_broken_features_are_told():
    pairs = made_up()
    with pytest.raises(InputError, match="1 pair"):
        train_heads(made_up(count=1), SETTINGS)
    pairs.pooled[3, 0, 3] = math.nan
    with pytest.raises(DivergedError, match="not finite"):
        train_heads(pairs, SETTINGS)


@pytest.fixture(scope="module")
def backbones():
    return Backbones(torch.device("cpu"))


@pytest.fixture
def folder(backbones, tmp_path):
    heads, training = train_heads(made_up(), SETTINGS.model_copy(update={"epochs": 1}))
    aligned.save(AlignedTeacher(backbones, heads, aligned.image_spec(32)), heads, tmp_path, training)
    return tmp_path


def test_a_saved_teacher_is_the_same(backbones, folder):
    first = aligned.load(folder, device=torch.device("cpu"))
    said = json.loads((folder / "teacher.json").read_text())
    assert {name: said[name] for name in aligned.describe(first)} == aligned.describe(first)
    x, texts = torch.randn(3, 3, 32, 32), ["a dog", "a red car"]
    image, text = first.encode_images(x), first.encode_texts(texts)
    assert image.shape == (3, 16)
    assert text.shape == (2, 16)
    for embedding in (image, text):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))
        assert not embedding.requires_grad
    heads = AlignedHeads(16, 32, 0.0).eval()
    heads.load_state_dict(safetensors.torch.load_file(folder / "heads.safetensors"))
    torch.testing.assert_close(heads.image(*backbones.features(x)).detach(), image)
    torch.testing.assert_close(first.visual_module(x), image, rtol=0, atol=1e-4)
    tokens = torch.tensor(backbones.text.tokens(["a dog"]))
    torch.testing.assert_close(first.text_module(tokens), text[:1], rtol=0, atol=1e-5)
    counted = {id(p): p.numel() for m in (first.visual_module, first.text_module) for p in m.parameters()}
    assert first.parameters_count() == sum(counted.values()) + 1  # and the scale


def test_other_heads_are_another_teacher(backbones, folder):
    first = aligned.load(folder, device=torch.device("cpu"))
    heads, _ = train_heads(made_up(), SETTINGS.model_copy(update={"epochs": 1, "seed": 1}))
    assert AlignedTeacher(backbones, heads, first.image).weights_sha256 != first.weights_sha256


@pytest.mark.parametrize("name", ["teacher.json", "heads.safetensors"])
def test_missing_or_damaged_files_are_told(folder, name):
    content = (folder / name).read_bytes()
    for damaged in (None, content[:50], b""):
        (folder / name).unlink(missing_ok=True)
        if damaged is not None:
            (folder / name).write_bytes(damaged)
        with pytest.raises(InputError, match="missing or damaged"):
            aligned.load(folder, device=torch.device("cpu"))


def test_changed_heads_or_packages_are_told(folder):
    state = safetensors.torch.load_file(folder / "heads.safetensors")
    state["image_out.bias"][0] += 1
    safetensors.torch.save_file(state, folder / "heads.safetensors")
    with pytest.raises(InputError, match="other backbone weights"):
        aligned.load(folder, device=torch.device("cpu"))
