"""The parameter tree: what is accepted, and how each wrong thing is told."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cliprd import params
from cliprd.errors import ParamsError

ROOT = Path(__file__).parents[1]


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        params.load(file, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("file", ["params.yaml", "configs/paper.yaml"])
def test_shipped_files_load_and_round_trip(file, tmp_path):
    tree = params.load(ROOT / file)
    (tmp_path / "again.yaml").write_text(params.dump(tree), encoding="utf-8")
    assert params.load(tmp_path / "again.yaml") == tree


def test_paper_file_is_the_papers_setting():
    paper = params.load(ROOT / "configs/paper.yaml")
    assert paper.teacher.name == "open_clip:ViT-B-16:laion400m_e32"
    assert paper.student.arch == "ViT-T-16"
    assert (paper.distill.epochs, paper.distill.batch_size, paper.distill.lr) == (32, 1024, 1e-3)
    assert (paper.distill.warmup_steps, paper.distill.weight_decay) == (10_000, 0.1)
    assert paper.distill.weights.model_dump() == {
        **dict.fromkeys(("task", "hrd", "icl", "vrd", "vrd_ce", "xrd"), 1),
        "fd": 2000,
    }
    assert paper.augmentation.scale == (0.9, 1.0)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("distill: {epoch: 3}", ["distill.epoch", "did you mean 'distill.epochs'", "warmup_steps"]),
        ("distil: {}", ["unknown key 'distil'", "did you mean 'distill'"]),
        ("teacher: {aligned: {dims: 3}}", ["teacher.aligned.dims", "did you mean 'teacher.aligned.dim'"]),
        ("distill: {lr: -1}", ["'distill.lr' = -1", "greater than 0"]),
        ("distill: {lr: .nan}", ["distill.lr"]),
        ("distill: {epochs: 3.5}", ["distill.epochs", "integer"]),
        ("distill: {epochs: '3'}", ["distill.epochs", "integer"]),
        ("distill: {epochs: true}", ["distill.epochs", "integer"]),
        ("distill: {method: clp_kd}", ["distill.method", "clip_kd", "-exp"]),
        ("distill: {method: clip_rd-log}", ["distill.method", "-raw or -exp"]),
        ("distill: {batch_size: 1}", ["distill.batch_size", "greater than or equal to 2"]),
        ("distill: {processes: 0}", ["'distill.processes' = 0: ", "greater than 0", "'auto'"]),
        ("ablation: {methods: []}", ["ablation.methods", "at least 1"]),
        ("ablation: {methods: [foo]}", ["ablation.methods", "foo"]),
        ("teacher: {name: clip}", ["teacher.name", "open_clip:<architecture>"]),
        ("augmentation: {scale: [0.9, 0.5]}", ["augmentation", "lowest <= highest"]),
        ("distill: 3", ["'distill' = 3"]),
        ("- a", ["not a tree"]),
        ("a: [", ["not valid YAML"]),
        ("distill: {weights: {fd: .inf}}", ["distill.weights.fd"]),
    ],
)
def test_wrong_trees_are_told_precisely(text, parts, tmp_path):
    message = refused(tmp_path, text)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("override", ["distill", "=3", "distill..lr=3", "distill.lr=[", "distill.lrr=1"])
def test_wrong_overrides_are_told(override, tmp_path):
    assert override.split("=")[0] in refused(tmp_path, "{}", override)


def test_missing_file_and_directory_are_told(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ParamsError, match="cannot be read"):
            params.load(path)


def test_overrides_are_yaml_and_reach_any_depth(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("{}", encoding="utf-8")
    tree = params.load(file, ["distill.lr=1e-4", "ablation.seeds=[1, 2]", "distill.weights.fd=null", "data.path=x"])
    assert tree.distill.lr == 1e-4
    assert tree.ablation.seeds == (1, 2)
    assert tree.distill.weights.fd is None
    assert tree.data.path == "x"


@example({"function-": None})
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.dictionaries(st.text(), c)))
def test_any_tree_is_either_right_or_a_params_error(tree):
    try:
        params.validate({"distill": tree} if not isinstance(tree, dict) else tree, where="test")
    except ParamsError as error:
        assert str(error).startswith("test: ")


def test_every_key_has_a_default_so_that_the_empty_file_is_valid(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("", encoding="utf-8")
    assert params.load(file) == params.Params()


def test_parse_method():
    assert params.parse_method("clip_kd") == ("clip_kd", None)
    assert params.parse_method("clip_rd-exp") == ("clip_rd", "exp")
    for wrong in ("clip_rd-", "", "clip_rd-raw-exp", "CLIP_RD"):
        with pytest.raises(ValueError, match="is no method"):
            params.parse_method(wrong)


def test_committed_schema_is_fresh():
    committed = (ROOT / "docs/params.schema.json").read_text(encoding="utf-8")
    assert committed == params.schema(), "run: make schema"


def test_schema_knows_the_keys_of_the_shipped_file():
    schema = json.loads(params.schema())
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert set(shipped) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
