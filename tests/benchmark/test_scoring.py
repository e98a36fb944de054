"""Classification and retrieval: by hand, by property, with ties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.benchmark import retrieval, zeroshot
from cliprd.benchmark.multilabel import average_precision, random_precision, rank_images
from cliprd.benchmark.retrieval import image_to_text_ranks, nearest, retrieve, text_to_image_ranks
from cliprd.benchmark.selection import select
from cliprd.benchmark.zeroshot import classify, top_classes
from cliprd.statistics.bootstrap import Settings
from tests.benchmark.tools import unit


def means(outcomes):
    """Metric → score."""
    return {
        metric: float(np.average(values, weights=outcomes.weights.get(metric)))
        for metric, values in outcomes.values.items()
    }


def test_classification_equals_a_count_by_hand():
    classes = np.eye(6, dtype=np.float32)
    images = unit([
        [9, 8, 7, 6, 5, 4],  # class 0 right
        [8, 9, 7, 6, 5, 4],  # says 1, is 0: second
        [9, 8, 7, 6, 5, 4],  # says 0, is 5: not among five
        [1, 2, 3, 9, 5, 6],  # class 3 right
    ])  # fmt: skip
    found = classify(images, classes, np.array([0, 0, 5, 3]))
    assert means(found) == pytest.approx(
        {"acc1": 0.5, "acc5": 0.75, "mean_per_class_recall": (0.5 + 0 + 1) / 3}, abs=1e-6
    )
    assert found.extra["predicted"].tolist() == [
        [0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [0, 1, 2, 3, 4], [3, 5, 4, 2, 1],
    ]  # fmt: skip


def test_fewer_than_five_classes_have_no_top_five():
    found = classify(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), np.arange(4))
    assert means(found) == {"acc1": 1.0, "mean_per_class_recall": 1.0}
    assert found.extra["predicted"].shape == (4, 4)


def test_retrieval_equals_a_count_by_hand():
    images = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    texts = unit([
        [9, 1, 0],   # of image 0: finds it first
        [1, 9, 2],   # of image 0: finds 1, 2, then 0
        [0, 2, 9],   # of image 1: second
        [0, 1, 8.]   # of image 2: first
    ])  # fmt: skip
    owner = np.array([0, 0, 1, 2])
    assert text_to_image_ranks(images, texts, owner).tolist() == [0, 2, 1, 0]
    # Image 1 = [0,1,0] sees texts .11 .97 .22 .12: its own (2) is second; image 2 sees .00 .22 .98 .99.
    assert image_to_text_ranks(images, texts, owner).tolist() == [0, 1, 0]
    found = retrieve(images, texts, owner)
    scores = means(found)
    assert scores["text_to_image_r1"] == pytest.approx(2 / 4)
    assert scores["image_to_text_r1"] == pytest.approx(2 / 3)
    assert scores["text_to_image_r5"] == scores["image_to_text_r10"] == 1  # k beyond the gallery
    assert found.values["text_to_image_r1"].tolist() == [0.5, 0, 1]
    assert found.weights["text_to_image_r1"].tolist() == [2, 1, 1]
    assert "image_to_text_r1" not in found.weights


def test_a_collapsed_model_scores_at_chance_level():
    point = unit(np.ones((40, 3)))
    found = means(retrieve(point, point, np.arange(40)))
    assert found["text_to_image_r1"] == found["image_to_text_r1"] == pytest.approx(1 / 40)
    assert found["text_to_image_r10"] == pytest.approx(10 / 40)
    assert means(classify(point, point[:8], np.arange(40) % 8))["acc1"] == pytest.approx(1 / 8)


@pytest.mark.parametrize("shown_first", [True, False])
def test_a_collapsed_model_does_not_rank_images_by_their_order(shown_first):
    point, labels = unit(np.ones((40, 3))), np.zeros((40, 2), dtype=bool)
    labels[: 10 if shown_first else -10, 0] = labels[10:, 1] = True
    found = rank_images(point, point[:2], labels).values["mean_average_precision"].mean()
    assert found < random_precision(40, labels.sum(axis=0))


@pytest.mark.parametrize(
    ("images", "shown"), [(1, [1]), (1, [0, 1]), (3, [1]), (3, [3, 1, 0]), (24, [1, 2, 12]), (40, [4, 0])]
)
def test_random_precision_is_that_of_images_in_random_order(images, shown):
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        orders = [rng.permutation(np.arange(images) < count) for count in shown]
        found.append(np.mean([average_precision(order)[0] for order in orders]))
    error = 4 * np.std(found) / len(found) ** 0.5 + 1e-12
    assert random_precision(images, np.array(shown)) == pytest.approx(np.mean(found), abs=error)


def test_ties_go_to_the_lower_number():
    images = unit([[1, 0], [1, 0], [0, 1]])
    assert text_to_image_ranks(images, images, np.arange(3)).tolist() == [0, 1, 0]
    assert image_to_text_ranks(images, images, np.arange(3)).tolist() == [0, 1, 0]
    assert top_classes(images, images).tolist() == [[0, 1, 2], [0, 1, 2], [2, 0, 1]]
    assert nearest(images, images, 2).tolist() == [[0, 1], [0, 1], [2, 0]]


def brute_ranks(images, texts, owner):
    """Ranks the slow way, from full stable sorts."""
    similarity = texts @ images.T
    t2i = [list(np.argsort(-row, kind="stable")).index(own) for row, own in zip(similarity, owner, strict=True)]
    i2t = [
        min(list(np.argsort(-column, kind="stable")).index(m) for m in np.flatnonzero(owner == i))
        for i, column in enumerate(similarity.T)
    ]
    return t2i, i2t


@st.composite
def sets(draw):
    """Embeddings on a coarse grid, so that ties happen, and owners that cover all images, in no order."""
    n, extra, dim = draw(st.integers(1, 7)), draw(st.integers(0, 6)), draw(st.integers(1, 3))
    owner = draw(st.permutations([*range(n), *draw(st.lists(st.integers(0, n - 1), min_size=extra, max_size=extra))]))
    values = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=dim, max_size=dim)
    images = draw(st.lists(values, min_size=n, max_size=n))
    texts = draw(st.lists(values, min_size=len(owner), max_size=len(owner)))
    return np.array(images, np.float32), np.array(texts, np.float32), np.array(owner)


@settings(max_examples=150, deadline=None)
@given(sets(), st.integers(1, 30))
def test_ranks_equal_full_sorts_in_blocks_of_any_size(data, block):
    images, texts, owner = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_BLOCK", block)
        patch.setattr(zeroshot, "_BLOCK", block)
        t2i, i2t = brute_ranks(images, texts, owner)
        assert text_to_image_ranks(images, texts, owner).tolist() == t2i
        assert image_to_text_ranks(images, texts, owner).tolist() == i2t
        expected = np.argsort(-(images @ texts.T), axis=1, kind="stable")[:, :5]
        assert np.array_equal(top_classes(images, texts), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(1, 3))
def test_permuting_the_test_set_does_not_change_scores(seed, n, per_image):
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(n, 8)))
    owner = np.repeat(np.arange(n), per_image)
    texts = unit(images[owner] + rng.normal(size=(len(owner), 8)))
    order = rng.permutation(n)
    texts_too = np.concatenate([np.flatnonzero(owner == i) for i in order])
    before = retrieve(images, texts, owner)
    after = retrieve(images[order], texts[texts_too], owner)
    assert means(before) == pytest.approx(means(after))
    for metric, values in before.values.items():
        assert np.array_equal(values[order], after.values[metric])
    labels = rng.integers(0, 6, n)
    classes = unit(rng.normal(size=(6, 8)))
    one, two = classify(images, classes, labels), classify(images[order], classes, labels[order])
    assert means(one) == pytest.approx(means(two))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4))
def test_perfect_embeddings_score_one(seed, n, per_image):
    rows = unit(np.random.default_rng(seed).normal(size=(n, 16)))
    owner = np.repeat(np.arange(n), per_image)
    found = retrieve(rows, rows[owner], owner)
    assert set(means(found).values()) == {1.0}
    assert set(means(classify(rows, rows, np.arange(n))).values()) == {1.0}
    for interval in found.scores("task", Settings(resamples=40)).values():
        assert (interval["low"], interval["high"]) == (1, 1)


def test_captions_of_one_image_are_resampled_together():
    """Ten copies of every caption must not narrow the interval."""
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(150, 4)))
    texts = unit(images + rng.normal(0, 0.3, size=(150, 4)))
    copies = np.repeat(np.arange(150), 10)
    settings = Settings(resamples=400)
    once = retrieve(images, texts, np.arange(150)).scores("task", settings)["text_to_image_r1"]
    tenfold = retrieve(images, texts[copies], copies).scores("task", settings)["text_to_image_r1"]
    assert tenfold["value"] == pytest.approx(once["value"])
    assert tenfold["high"] - tenfold["low"] == pytest.approx(once["high"] - once["low"], rel=0.05)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 10**6))
def test_mean_average_precision_and_jackknife_equal_leaving_one_out(n, classes, seed):
    """Against CLIP_benchmark's own formula, of all images and of all but each."""
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification").average_precision_per_class
    rng = np.random.default_rng(seed)
    images, prompts = unit(rng.normal(size=(n, 8))), unit(rng.normal(size=(classes, 8)))
    labels = rng.random((n, classes)) < 0.4
    found = rank_images(images, prompts, labels).values["mean_average_precision"]
    scores, truth = torch.from_numpy(images @ prompts.T), torch.from_numpy(labels)
    assert found.mean(dtype=np.float64) == pytest.approx(theirs(scores, truth).mean().item(), abs=2e-5)
    if n > 1:
        without = np.array([theirs(scores[k], truth[k]).mean().item() for k in ~torch.eye(n, dtype=torch.bool)])
        expected = found.mean() + (n - 1) * (without.mean() - without)
        assert found == pytest.approx(expected, abs=1e-4)


def test_the_right_caption_must_be_nearer_than_every_wrong_one():
    images = unit([[1, 0], [1, 0], [1, 0], [0, 1]])
    texts = unit([[1, 0], [0, 1], [1, 1], [1, 0], [1, 0], [1, 0], [0, 1], [1, 1], [1, 0]])
    owners = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3])
    assert select(images, texts, owners).values["text_acc"].tolist() == [1, 0, 0, 1]  # the third: a tie
