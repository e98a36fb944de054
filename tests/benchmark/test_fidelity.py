"""Geometry of student and teacher: against scipy and textbook formulas, invariances, honest intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cliprd.benchmark.fidelity import UndefinedError, cka, compare, cosines, cross_rank, sample, spearman, within_rank
from tests.benchmark.tools import unit


def draw(n, rng, noise=0.5, dims=(24, 32)):
    """A student that sees a squashed, noisy projection of what the teacher sees."""
    z = rng.normal(size=(n, dims[1])) * np.linspace(0.3, 2, dims[1])
    turn = np.random.default_rng(0).normal(size=(dims[1], dims[0]))
    student = np.tanh(z @ turn / 5) + noise * rng.normal(size=(n, dims[0]))
    return unit(student).astype(float), unit(z).astype(float)


def off_diagonal(rows):
    return (rows @ rows.T)[np.triu_indices(len(rows), k=1)]


def textbook_cka(x, y):
    """Kornblith et al. 2019, equation with centred features."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def textbook_debiased(x, y):
    """Song et al. 2012, written out."""

    def hsic(k, l):  # noqa: E741
        k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
        n, one = len(k), np.ones(len(k))
        return np.trace(k @ l) + one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ l @ one

    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def test_metrics_equal_scipy_and_textbook_formulas():
    student, teacher = draw(40, np.random.default_rng(1))
    expected = spearmanr(off_diagonal(student), off_diagonal(teacher)).statistic
    assert within_rank(student, teacher).mean() == pytest.approx(expected, abs=1e-12)
    texts = draw(11, np.random.default_rng(2))
    cross = spearmanr((student @ texts[0].T).ravel(), (teacher @ texts[1].T).ravel()).statistic
    found = cross_rank((student, texts[0]), (teacher, texts[1]), paired=False)
    assert found.shape == (40,)
    assert found.mean() == pytest.approx(cross, abs=1e-12)
    assert cka(student, teacher).mean() == pytest.approx(textbook_cka(student, teacher), abs=1e-12)
    assert cka(student, teacher, debiased=True).mean() == pytest.approx(textbook_debiased(student, teacher), abs=1e-12)


def test_jackknife_values_equal_leaving_one_out():
    student, teacher = draw(12, np.random.default_rng(3))
    for debiased, formula in ((False, textbook_cka), (True, textbook_debiased)):
        left_out = np.array([
            formula(np.delete(student, i, axis=0), np.delete(teacher, i, axis=0)) for i in range(12)
        ])  # fmt: skip
        expected = formula(student, teacher) + 11 * (left_out.mean() - left_out)
        assert cka(student, teacher, debiased=debiased) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_spearman_with_ties_is_scipys(pairs):
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        with pytest.raises(UndefinedError, match="all similarities"):
            spearman(x, y)
        return
    rho, influence = spearman(x, y)
    assert rho == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)
    assert influence.mean() == pytest.approx(0, abs=1e-9)


def test_a_rotated_space_scores_one():
    _, teacher = draw(30, np.random.default_rng(4))
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(32, 32)))[0]
    turned = teacher @ turn
    for score in (within_rank, cka, lambda a, b: cka(a, b, debiased=True)):
        assert score(turned, teacher).mean() == pytest.approx(1, abs=1e-9)
    both = cross_rank((turned, turned[:9]), (teacher, teacher[:9]), paired=False)
    assert both.mean() == pytest.approx(1, abs=1e-9)
    assert cosines(teacher, teacher).mean() == pytest.approx(1)
    assert abs(cosines(turned, teacher).mean()) < 0.5


def test_unrelated_spaces_are_near_zero_but_plain_cka_is_not():
    rng = np.random.default_rng(6)
    a, b = unit(rng.normal(size=(30, 256))).astype(float), unit(rng.normal(size=(30, 256))).astype(float)
    assert abs(within_rank(a, b).mean()) < 0.15
    assert abs(cka(a, b, debiased=True).mean()) < 0.15
    assert cka(a, b).mean() > 0.8  # why the debiased one is there


def test_fidelity_falls_with_noise():
    for score in (within_rank, cka, lambda a, b: cka(a, b, debiased=True)):
        scores = [score(*draw(200, np.random.default_rng(7), noise=noise)).mean() for noise in (0.1, 0.5, 2.0)]
        assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize(
    "score",
    [
        within_rank,
        lambda a, b: cka(a, b),
        lambda a, b: cka(a, b, debiased=True),
        lambda a, b: cross_rank((a, a @ np.diag(np.linspace(0.2, 1, 24))), (b, b), paired=True),
    ],
    ids=["within_rank", "cka", "cka_debiased", "cross_rank"],
)
def test_influence_values_predict_the_spread_between_samples(score):
    """The standard error from one sample against the standard deviation over many."""
    rng = np.random.default_rng(8)
    runs = [score(*draw(80, rng)) for _ in range(120)]
    truth = np.std([run.mean() for run in runs], ddof=1)
    told = np.mean([run.std(ddof=1) / np.sqrt(len(run)) for run in runs])
    assert 0.8 * truth < told < 1.5 * truth


def embeddings(rng, n=30, classes=9, width=16, **more):
    return {
        "image": unit(rng.normal(size=(n, width))), "class.standard": unit(rng.normal(size=(classes, width))), **more
    }  # fmt: skip


def test_compare_gives_every_metric_of_the_requested_rows():
    rng = np.random.default_rng(9)
    teacher = embeddings(rng)
    images, texts = np.arange(5, 25), np.arange(9)
    same = compare(teacher, teacher, text_key="class.standard", images=images, texts=texts, paired=False)
    assert not same.undefined
    assert {metric: len(values) for metric, values in same.outcomes.values.items()} == {
        "image_cosine": 20, "image_rank": 20, "image_cka": 20, "image_cka_debiased": 20, "cross_rank": 20,
        "text_cosine": 9, "text_rank": 9, "text_cka": 9, "text_cka_debiased": 9,
    }  # fmt: skip
    assert all(values.mean() == pytest.approx(1, abs=1e-6) for values in same.outcomes.values.values())
    assert same.outcomes.extra["images"].tolist() == images.tolist()


def test_different_widths_need_projections():
    rng = np.random.default_rng(10)
    teacher, student = embeddings(rng), embeddings(rng, width=8)
    picks = {"text_key": "class.standard", "images": np.arange(30), "texts": np.arange(9), "paired": False}
    found = compare(student, teacher, **picks)
    assert set(found.undefined) == {"image_cosine", "text_cosine"}
    assert "8 dimensions, the teacher 16" in found.undefined["image_cosine"]
    student |= {f"projected.{name}": rows for name, rows in teacher.items()}
    found = compare(student, teacher, **picks)
    assert not found.undefined
    assert found.outcomes.values["image_cosine"].mean() == pytest.approx(1, abs=1e-6)
    assert found.outcomes.values["image_rank"].mean() < 0.5  # of the student's own space, as it is used


def test_few_examples_and_a_collapsed_student_are_undefined():
    rng = np.random.default_rng(11)
    teacher = embeddings(rng, classes=4)
    picks = {"text_key": "class.standard", "images": np.arange(30), "texts": np.arange(4), "paired": False}
    found = compare(teacher, teacher, **picks)
    assert set(found.undefined) == {"text_rank", "text_cka", "text_cka_debiased"}
    assert "4 examples are too few" in found.undefined["text_rank"]
    point = {name: unit(np.ones_like(rows)) for name, rows in teacher.items()}
    found = compare(point, teacher, **picks)
    assert {"image_cka", "image_cka_debiased"} <= set(found.undefined)
    assert all(np.isfinite(values).all() for values in found.outcomes.values.values())


def test_the_sample_is_fixed_sorted_and_capped():
    assert sample(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    picked = sample(1000, 50, 3)
    assert picked.tolist() == sample(1000, 50, 3).tolist() == sorted(set(picked.tolist()))
    assert len(picked) == 50
    assert picked.tolist() != sample(1000, 50, 4).tolist()
