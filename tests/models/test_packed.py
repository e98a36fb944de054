"""What training computes of the towers equals what the towers themselves give, in value and gradient."""

import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from cliprd import params
from cliprd.models import packed
from cliprd.models import student as students

CPU = torch.device("cpu")
SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEXT = {
    "plain": ({}, True),
    "one_layer": ({"text_cfg__layers": 1}, True),
    "custom_text": ({"custom_text": True}, True),
    "eos": ({"text_cfg__pool_type": "eos", "text_cfg__eos_id": 49407}, True),
    "proj_bias": ({"text_cfg__proj_bias": True}, True),
    "quick_gelu": ({"quick_gelu": True}, True),
    "layer_scale": ({"text_cfg__ls_init_value": 0.3}, True),
    "custom_blocks": ({"text_cfg__qk_norm": True}, False),
    "no_causal_mask": ({"text_cfg__no_causal_mask": True}, False),
    "last": ({"text_cfg__pool_type": "last"}, False),
}
IMAGE = {
    "plain": ({}, True),
    "one_layer": ({"vision_cfg__layers": 1}, True),
    "no_ln_pre": ({"vision_cfg__no_ln_pre": True}, True),
    "norm_after_pool": ({"vision_cfg__final_ln_after_pool": True}, True),
    "layer_scale": ({"vision_cfg__ls_init_value": 0.3}, True),
    "average": ({"vision_cfg__pool_type": "avg"}, False),
    "attentional": ({"vision_cfg__attentional_pool": True}, False),
    "custom_blocks": ({"vision_cfg__qk_norm": True}, False),
    "resnet": ({"vision_cfg__layers": [1, 1, 1, 1], "vision_cfg__width": 8}, False),
}


def build(changes):
    config = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    model = students.build_student(params.Student(config=config), seed=0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # fresh norms and biases are ones and zeros, where much goes unnoticed
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return model


def captions(lengths, seed=0):
    """Tokens of texts that end at `lengths`; what follows the end is no padding, and must not matter."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 49000, (len(lengths), max(lengths)), generator=generator)
    for line, length in zip(tokens, lengths, strict=True):
        line[length - 1] = 49407
    return tokens


def both(model, plain, fast):
    """(features, gradients) of either way."""
    found = []
    for encode in (plain, fast):
        model.zero_grad(set_to_none=True)
        features = encode()
        weight = torch.randn(features.shape, dtype=features.dtype, generator=torch.Generator().manual_seed(2))
        (features * weight).sum().backward()
        found.append((features.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    return found


def assert_equal(model, plain, fast):
    slow, quick = both(model, plain, fast)
    torch.testing.assert_close(quick, slow, rtol=1e-9, atol=1e-11)


def blocks_run(model, encode):
    """How many blocks were called as modules: none on the fast path."""
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for name, module in model.named_modules()
        if name.split(".")[-2:-1] == ["resblocks"]
    ]
    encode()
    for hook in hooks:
        hook.remove()
    return len(calls)


@pytest.mark.parametrize("variant", TEXT)
def test_packed_text_features_equal_open_clips(variant):
    changes, fast = TEXT[variant]
    model = build(changes)
    # Towers that cannot be cut need a zero after the end, as the tokenizer gives.
    tokens = captions([7, 24, 2, 13])
    if not fast:
        tokens[torch.arange(24) > torch.tensor([[6], [23], [1], [12]])] = 0
    encode = lambda: packed.pooled_text_features(model, tokens, CPU)  # noqa: E731
    assert_equal(model, lambda: students.encode_text_features(model, tokens), encode)
    assert (blocks_run(model, encode) == 0) is fast


@pytest.mark.parametrize("variant", IMAGE)
def test_pooled_image_features_equal_open_clips(variant):
    changes, fast = IMAGE[variant]
    model = build(changes).eval()
    pixels = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    encode = lambda: packed.pooled_image_features(model, pixels)  # noqa: E731
    assert_equal(model, lambda: students.encode_image_features(model, pixels), encode)
    if variant != "resnet":
        assert (blocks_run(model, encode) == 0) is fast


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_packing_works_for_any_lengths(lengths, seed):
    model = MODEL
    tokens = captions(lengths, seed)
    assert_equal(
        model,
        lambda: students.encode_text_features(model, tokens),
        lambda: packed.pooled_text_features(model, tokens, CPU),
    )


def test_on_a_cpu_packed_rows_have_few_sizes(monkeypatch):
    taken = []
    linear = packed.linear
    monkeypatch.setattr(packed, "linear", lambda x, *more: taken.append(len(x)) or linear(x, *more))
    packed.pooled_text_features(MODEL, captions([7, 24, 2, 13]), CPU)  # 46 rows of 96 places
    packed.pooled_text_features(MODEL, captions([24, 24, 23, 24]), CPU)  # 95
    assert set(taken) == {64, 96, 4}  # 4: the last block's


MODEL = build({})


def test_towers_with_gradient_checkpointing_use_their_own_forward():
    model = build({})
    model.set_grad_checkpointing(True)
    tokens, pixels = captions([5, 9]), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert blocks_run(model, lambda: packed.pooled_text_features(model, tokens, CPU)) == 2
    assert blocks_run(model, lambda: packed.pooled_image_features(model, pixels)) == 2


def test_under_autocast_both_paths_agree_up_to_rounding():
    model = build({}).float()
    tokens, pixels = captions([7, 24, 2, 13]), torch.randn(3, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for slow, quick in (
            (students.encode_text_features(model, tokens), packed.pooled_text_features(model, tokens, CPU)),
            (students.encode_image_features(model, pixels), packed.pooled_image_features(model, pixels)),
        ):
            assert quick.dtype == slow.dtype
            assert torch.nn.functional.cosine_similarity(quick.float(), slow.float()).min() > 0.999
