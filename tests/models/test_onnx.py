import onnxruntime
import pytest
import torch

from cliprd import params
from cliprd.models import onnx as exporting
from cliprd.models.student import build_student, encode_text_features, student_config, tokenize
from tests.models.test_student import SMALL, TEXTS, changed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    model = build_student(params.Student(config=SMALL), seed=0)
    exporting.export_onnx(model, folder)
    return model, folder


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_model_is_left_as_it_was(exported):
    model, _ = exported
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("count", [1, 3, 16])
def test_both_towers_equal_torch(exported, count):
    model, folder = exported
    model.eval()
    image = torch.randn(count, 3, 32, 32)
    found = session(folder / "image.onnx").run(["image_embedding"], {"image": image.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(found), model.encode_image(image, normalize=True), rtol=0, atol=1e-5
        )
        texts = (TEXTS * 6)[:count]
        cut = tokenize(student_config(params.Student(config=SMALL)), texts)
        full = torch.nn.functional.pad(cut, (0, 24 - cut.shape[1]))
        found = session(folder / "text.onnx").run(["text_embedding"], {"text": full.numpy()})[0]
        expected = torch.nn.functional.normalize(encode_text_features(model, cut), dim=-1)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
    model.train()


def test_equal_models_give_equal_bytes_without_paths(exported, tmp_path):
    _, folder = exported
    exporting.export_onnx(build_student(params.Student(config=SMALL), seed=0), tmp_path)
    for name in ("image.onnx", "text.onnx"):
        content = (tmp_path / name).read_bytes()
        assert content == (folder / name).read_bytes()
        assert b".py" not in content


@pytest.mark.parametrize(
    "changes",
    [
        {"custom_text": True},
        {"text_cfg__pool_type": "eos", "text_cfg__eos_id": 49407},
        {"text_cfg__no_causal_mask": True},
        {"vision_cfg__pool_type": "avg", "quick_gelu": True},
        {"vision_cfg__layers": [1, 1, 1, 1], "vision_cfg__width": 16, "vision_cfg__head_width": 32},
    ],
    ids=str,
)
def test_other_architectures_export(changes, tmp_path):
    exporting.export_onnx(build_student(changed(**changes), seed=0), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"image.onnx", "text.onnx"}


def test_a_graph_that_differs_is_refused_and_nothing_written(exported, tmp_path, monkeypatch):
    model, _ = exported
    true = exporting._trace

    def wrong(tower, sample, name):
        if name == "image":
            return true(tower, sample, name)
        weight = tower.model.text_projection
        with torch.no_grad():
            weight[0, 0] += 1
            try:
                return true(tower, sample, name)
            finally:
                weight[0, 0] -= 1

    monkeypatch.setattr(exporting, "_trace", wrong)
    monkeypatch.setattr(exporting, "_dynamo", wrong)
    with pytest.raises(exporting.ExportError, match="text tower"):
        exporting.export_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failing_exporter_gives_way_to_the_other(exported, tmp_path, monkeypatch):
    model, _ = exported
    true, called = exporting._trace, []

    def broken(*_):
        raise RuntimeError("no such operator")

    def other(tower, sample, name):
        called.append(name)
        return true(tower, sample, name)

    monkeypatch.setattr(exporting, "_trace", broken)
    monkeypatch.setattr(exporting, "_dynamo", other)
    exporting.export_onnx(model, tmp_path)
    assert called == ["image", "text"]


def test_the_newer_exporter_works_too():
    model = build_student(changed(vision_cfg__layers=1, text_cfg__layers=1), seed=0)
    tokens = exporting.random_tokens(24, 49408, 2, torch.Generator().manual_seed(0))
    with exporting._as_for_inference(model):
        tower = exporting.OnnxTextTower(model)
        graph = exporting._plain(exporting._dynamo(tower, tokens, "text"))
        more = exporting.random_tokens(24, 49408, 5, torch.Generator().manual_seed(1))
        assert exporting._difference(graph, tower, more, "text") < 1e-5
