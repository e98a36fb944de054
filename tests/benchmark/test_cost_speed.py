"""Parameters and MACs by hand; timings are there and make sense, whatever they are."""

from cliprd.benchmark.cost import cost
from cliprd.benchmark.speed import ROUNDS, measure
from tests.benchmark.tools import student


def block_macs(tokens, width):
    """A transformer block: qkv, output, MLP of 4× width; scores and their use."""
    return tokens * width * width * (3 + 1 + 8) + 2 * tokens * tokens * width


def test_cost_equals_a_count_by_hand(tmp_path):
    encoder = student(tmp_path)
    found = cost(encoder)
    tokens, width, dim = 5, 16, 16  # 2 × 2 patches of 8 px and the class token
    patches = 4 * width * 3 * 8 * 8
    assert found["image_macs"] == patches + block_macs(tokens, width) + width * dim
    assert found["text_macs"] == block_macs(16, width) + width * dim
    count = sum(p.numel() for p in encoder.model.parameters())
    assert found["parameters"] == count
    assert found["image_parameters"] + found["text_parameters"] + 1 == count  # 1: the logit scale
    assert found["image_parameters"] == sum(p.numel() for p in encoder.model.visual.parameters())


def test_speed_has_the_documented_shape(tmp_path):
    found = measure(student(tmp_path), batch_size=4)
    assert set(found) == {"device", "threads", "precision", "image", "text"}
    for tower in ("image", "text"):
        assert set(found[tower]) == {"latency_ms", "per_second", "rounds", "batch_size"}
        latency = found[tower]["latency_ms"]
        assert 0 < latency["median"] <= latency["p95"]
        assert 1 <= latency["runs"] <= 50
        assert found[tower]["per_second"] > 0
        rounds = found[tower]["rounds"]
        assert len(rounds["per_second"]) == len(rounds["latency_ms"]) == ROUNDS
        assert min(rounds["per_second"]) <= found[tower]["per_second"] <= max(rounds["per_second"])
        assert found[tower]["batch_size"] == 4


def test_measurements_alternate_over_the_rounds(tmp_path, monkeypatch):
    encoder = student(tmp_path)
    calls = []
    monkeypatch.setattr(type(encoder), "encode_images", lambda self, images: calls.append(f"image {len(images)}"))
    monkeypatch.setattr(type(encoder), "encode_texts", lambda self, texts: calls.append(f"text {len(texts)}"))
    measure(encoder, batch_size=4)
    timed = [call for call, before in zip(calls[1:], calls, strict=False) if call != before]  # runs of one kind as one
    assert timed[-4 * ROUNDS :] == ["image 1", "text 1", "image 4", "text 4"] * ROUNDS
