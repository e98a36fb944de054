"""A user's own loss term: the same numbers and gradients as one that is built in, and a part of the training."""

import csv
import functools

import pytest
import torch

import cliprd
from cliprd import files, lineage, params, plugins
from cliprd.distill.objective import build_loss
from cliprd.errors import ParamsError
from cliprd.losses import DistillationLoss, LossWeights
from cliprd.stages import distill as stage
from cliprd.tracking import follow
from tests.distill import rooms
from tests.library import my_terms
from tests.losses.test_combined import batch

COPIES = {"task": my_terms.contrast, "hrd": my_terms.relation, "fd": my_terms.feature}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(plugins.terms, "_registered", {})


@pytest.mark.parametrize("widths", [(5, 5), (5, 7)])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_built_in_term_has_its_value_and_gradients(name, widths):
    def run(weights, terms=None):
        torch.manual_seed(0)
        loss = DistillationLoss(*widths, weights=weights, terms=terms)
        inputs = batch(8, *widths)
        for tensor in inputs[:3]:
            tensor.requires_grad_()
        (value,) = loss(*inputs).values()
        value.backward()
        return [value.detach(), *(t.grad for t in inputs[:3]), *(p.grad for p in loss.parameters())]

    own = run(LossWeights(**{name: 2.5}))
    copy = run(LossWeights(extra={"copy": 2.5}), {"copy": COPIES[name]})
    assert len(own) == len(copy)
    for one, other in zip(own, copy, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_shares_of_ranks_add_up_to_the_term():
    loss = DistillationLoss(5, 5, weights=LossWeights(extra={"copy": 1}), terms={"copy": my_terms.relation})
    whole = loss(*batch())["copy"]
    parts = [loss(*batch(), rows=rows)["copy"] for rows in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(sum(parts), whole)


def test_projections_are_there_only_for_terms_that_ask_for_them():
    def has(term):
        return DistillationLoss(5, 7, weights=LossWeights(extra={"copy": 1}), terms={"copy": term}).image_projection

    assert has(my_terms.feature) is not None
    assert has(my_terms.relation) is None


def test_a_weight_of_0_leaves_it_out():
    loss = DistillationLoss(5, 5, weights=LossWeights(task=1, extra={"copy": 0}))
    assert loss.term_names == ("task",)
    with pytest.raises(ValueError, match="all weights are 0"):
        DistillationLoss(5, 5, weights=LossWeights(extra={"copy": 0}), terms={"copy": my_terms.feature})


def test_what_cannot_be_a_term_is_refused():
    weights = LossWeights(extra={"mine": 1})
    with pytest.raises(ValueError, match="terms has no function of that name"):
        DistillationLoss(5, 5, weights=weights)
    with pytest.raises(TypeError, match="takes 'labels'"):
        DistillationLoss(5, 5, weights=weights, terms={"mine": my_terms.wrong})
    with pytest.raises(TypeError, match=r"returned torch.float32 \[8\]: a floating-point scalar"):
        DistillationLoss(5, 5, weights=weights, terms={"mine": my_terms.vector})(*batch())
    for name in ("task", "vrd_ce_image", "loss", "my_scale", "Mine", "a/b"):
        with pytest.raises(ValueError, match=r"taken|no name"):
            LossWeights(extra={name: 1})
        with pytest.raises(ValueError, match=r"taken|no name"):
            cliprd.register_term(name, my_terms.feature)
    with pytest.raises(TypeError, match="takes 'labels'"):
        cliprd.register_term("mine", my_terms.wrong)
    with pytest.raises(TypeError, match="plain function"):
        cliprd.register_term("mine", functools.partial(my_terms.feature))
    factor = 2.0
    with pytest.raises(TypeError, match="no other function's variables"):
        cliprd.register_term("mine", lambda student_image: student_image.mean() * factor)


def test_names_that_nobody_has_registered_list_those_that_are(tmp_path):
    cliprd.register_term("mine", my_terms.feature)
    file = tmp_path / "params.yaml"
    file.write_text("distill: {weights: {extra: {mien: 1}}}")
    with pytest.raises(ParamsError, match=r"distill\.weights\.extra: No loss term is called 'mien'; registered: mine"):
        params.load(file)
    tree = params.validate({"distill": {"weights": {"extra": {"mien": 1}}}}, where="test")
    with pytest.raises(ParamsError, match="registered: mine"):
        build_loss(tree.distill, 5, 5)
    taken = params.validate({"distill": {"weights": {"extra": {"xrd": 1}}}}, where="test")
    with pytest.raises(ParamsError, match=r"distill\.weights\.extra: 'xrd' is taken"):
        build_loss(taken.distill, 5, 5)
    file.write_text("distill: {weights: {extra: {mine: 1, other: 0}}}")
    assert params.load(file).distill.weights.of_terms() == {"mine": 1}


def test_it_trains_and_stands_beside_the_others(tmp_path):
    rooms.build(tmp_path)
    cliprd.register_term("distance", my_terms.feature)
    tree = rooms.make_params(tmp_path, method="clip_kd", epochs=2, weights={"fd": 0.5, "extra": {"distance": 0.5}})
    made = cliprd.distill(tree, tmp_path / "shards", tmp_path / "cache", tmp_path / "student")
    rows = list(csv.DictReader((tmp_path / "student/history.csv").open()))
    assert [row["distance"] for row in rows] == [row["fd"] for row in rows]
    assert made.facts["weights"]["distance"] == 0.5
    assert made.facts["final"]["distance"] == pytest.approx(made.facts["final"]["fd"])
    told = lineage.of(tmp_path / "student")
    assert told["params"]["distill"]["weights"]["extra"] == {"distance": 0.5}
    plain = lineage.code_parts((), ("cliprd.stages.distill",))
    assert {part for part in plain if plain[part] != told["code_parts"][part]} == {"losses", "distill"}


def test_an_edited_term_gets_a_run_of_its_own_in_mlflow(tmp_path):
    """A run is found again by its training's identity, which the code of a user's term belongs to."""
    rooms.build(tmp_path)
    cliprd.register_term("distance", my_terms.feature)
    inputs = {"shards": tmp_path / "shards", "cache": tmp_path / "cache"}
    for weights in ({}, {"extra": {"distance": 0.5}}):
        tree = rooms.make_params(tmp_path, method="clip_kd", weights=weights)
        shards, cache = stage._open(tree, inputs)
        work = stage._workspace(tree, tmp_path / "student", shards, cache)
        reader = object.__new__(follow._Reader)
        reader._params, reader._inputs, reader._output, reader._nodes = tree, inputs, tmp_path / "student", None
        assert reader._describe().training.key == files.digest([work.place, work.identity])
