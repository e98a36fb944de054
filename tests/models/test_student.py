import json

import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image

from cliprd import params
from cliprd.errors import InputError, ParamsError
from cliprd.models import student as students
from cliprd.models.encoder import state_sha256

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEXTS = ["a red fox", "a very long caption about one small green tree on top of a hill", ""]


def changed(**changes):
    config = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    return params.Student(config=config)


def test_the_papers_student_has_the_published_size():
    model = students.build_student(params.Student(arch="ViT-T-16"), seed=0)
    visual = sum(p.numel() for p in model.visual.parameters())
    text = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("visual")) - 1
    # ViT-T: 12 blocks of (12·192² + 13·192), patch 16·16·3·192, 197 positions, class token, 2 more norms, 192·384 out
    assert visual == 12 * (12 * 192**2 + 13 * 192) + 768 * 192 + 197 * 192 + 192 + 4 * 192 + 192 * 384
    assert text == 12 * (12 * 384**2 + 13 * 384) + 49408 * 384 + 77 * 384 + 2 * 384 + 384 * 384
    assert model.visual.transformer.resblocks[0].attn.num_heads == 3
    assert students.student_spec(model, params.Student()).size == 224


def test_init_follows_the_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = students.build_student(changed(), seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = students.build_student(changed(), seed=1).state_dict()
    other = students.build_student(changed(), seed=2).state_dict()
    assert state_sha256(first) == state_sha256(again) != state_sha256(other)


def test_an_open_clip_name_builds():
    config = students.student_config(params.Student(arch="ViT-S-32-alt"))
    assert config["embed_dim"] == 256


@pytest.mark.parametrize(
    ("name", "near"), [("ViT-T-61", "ViT-T-16"), ("vit-b-16", "ViT-B-16"), ("RN5O", "RN50"), ("local-dir:x", "")]
)
def test_a_misspelt_name_is_refused_with_a_suggestion(name, near):
    with pytest.raises(ParamsError) as error:
        students.build_student(params.Student(arch=name), seed=0)
    assert name in error.value.problem
    assert near in error.value.remedy


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_cfg__pach_size": 8}, "pach_size"),
        ({"vision_cfg__patch_size": 7}, "patch_size"),
        ({"vision_cfg__width": 100}, "head_width"),
        ({"vision_cfg__image_size": [32, 48]}, "image_size"),
        ({"vision_cfg__layers": 0}, "layers"),
        ({"vision_cfg__pool_type": "nonsense"}, "pool_type"),
        ({"vision_cfg__timm_model_name": "resnet_none"}, "resnet_none"),
        ({"text_cfg__heads": 3}, "heads"),
        ({"text_cfg__vocab_size": 100}, "49408"),
        ({"text_cfg__context_length": 2}, "context_length"),
        ({"text_cfg__embed_cls": True}, "custom_text"),
        ({"text_cfg__proj_type": "none", "text_cfg__width": 64}, "embed_dim"),
        ({"text_cfg__output_tokens": True}, "output_tokens"),
        ({"text_cfg": 3}, "text_cfg"),
        ({"embed_dim": True}, "embed_dim"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"embeddim": 4}, "embed_dim"),
    ],
)
def test_a_wrong_config_is_a_params_error(changes, said):
    with pytest.raises(ParamsError) as error:
        students.build_student(changed(**changes), seed=0)
    assert any(word in str(error.value) for word in said.split("|")), str(error.value)


def test_a_config_without_a_section_is_a_params_error():
    with pytest.raises(ParamsError, match="vision_cfg"):
        students.build_student(params.Student(config={"embed_dim": 3, "text_cfg": {}}), seed=0)


VARIANTS = {
    "plain": {},
    "custom_text": {"custom_text": True},
    "eos": {"text_cfg__pool_type": "eos", "text_cfg__eos_id": 49407},
    "custom_blocks": {"text_cfg__qk_norm": True},
    "proj_bias": {"text_cfg__proj_bias": True},
    "quick_gelu": {"quick_gelu": True},
    "no_causal_mask": {"text_cfg__no_causal_mask": True},
    "no_causal_mask_custom": {"text_cfg__no_causal_mask": True, "custom_text": True},
    "last": {"text_cfg__pool_type": "last"},
    "embed_cls": {"text_cfg__embed_cls": True, "custom_text": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_texts_give_the_full_contexts_embeddings_and_gradients(variant):
    student = changed(**VARIANTS[variant])
    model = students.build_student(student, seed=0).double()
    with torch.no_grad():  # open_clip starts norms at 1 and 0, where a wrong order of norm and pooling would not show
        for name, parameter in model.named_parameters():
            if "ln_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    full = open_clip.SimpleTokenizer(context_length=24)(TEXTS)
    cut = students.tokenize(students.student_config(student), TEXTS)
    exact = variant not in {"no_causal_mask", "no_causal_mask_custom", "last", "embed_cls"}
    assert cut.shape[1] == (16 if exact else 24)
    assert torch.equal(full[:, : cut.shape[1]], cut)

    names = [
        name for name, p in model.named_parameters() if not name.startswith("visual") and not name.startswith("logit")
    ]
    weight = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for encode, tokens in (
        (model.encode_text, full),
        (lambda t: students.encode_text_features(model, t), full[:, :16]),
    ):
        model.zero_grad()
        features = encode(tokens)
        (features * weight).sum().backward()
        results.append((features.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if n in names}))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=1e-12)
    assert set(results[0][1]) == set(names)
    for name in names:
        torch.testing.assert_close(results[1][1][name], results[0][1][name], rtol=1e-9, atol=1e-12, msg=name)


def test_a_caption_longer_than_the_context_keeps_its_end():
    cut = students.tokenize(SMALL, ["tree " * 60, "<end_of_text> hidden"])
    assert cut.shape == (2, 24)
    assert cut[0, -1] == 49407


def test_no_texts_are_no_tokens():
    assert students.tokenize(SMALL, []).shape[0] == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    student = params.Student(config=SMALL, mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1), interpolation="bilinear")
    model = students.build_student(student, seed=3)
    students.save_student(model, student, folder)
    return folder, model, student


@pytest.mark.parametrize("variant", ["plain", "custom_text", "eos", "quick_gelu", "no_causal_mask"])
def test_plain_open_clip_loads_every_kind(variant, tmp_path):
    student = changed(**VARIANTS[variant])
    model = students.build_student(student, seed=3).eval()
    students.save_student(model, student, tmp_path)
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.encode_text(tokens, normalize=True),
            students.load_student(tmp_path).encode_texts(TEXTS),
            rtol=0,
            atol=2e-6,
        )


def test_plain_open_clip_loads_the_same_student(saved):
    folder, model, student = saved
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    ours = students.load_student(folder)
    assert state_sha256(theirs.state_dict()) == state_sha256(model.state_dict())
    image = Image.effect_noise((50, 40), 90).convert("RGB")
    x = preprocess(image)[None]
    assert x.shape[-1] == ours.image.size == 32
    grey = preprocess(Image.new("RGB", (32, 32), (255, 0, 255)))[:, 0, 0]
    expected = (torch.tensor([1.0, 0.0, 1.0]) - torch.tensor(ours.image.mean)) / torch.tensor(ours.image.std)
    torch.testing.assert_close(grey, expected)
    assert ours.image.interpolation == "bilinear"
    assert "bilinear" in str(preprocess)
    theirs.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode_image(x, normalize=True), ours.encode_images(x), rtol=0, atol=1e-6)
        torch.testing.assert_close(
            theirs.encode_text(tokens, normalize=True), ours.encode_texts(TEXTS), rtol=0, atol=2e-6
        )
    assert tokens.shape[1] == 24
    cut = students.tokenize(SMALL, TEXTS)
    assert torch.equal(tokens[:, : cut.shape[1]], cut)
    assert students.student_spec(model, student) == ours.image
    assert ours.logit_scale == pytest.approx(1 / 0.07)
    assert ours.dim == 32
    assert ours.parameters_count() == sum(p.numel() for p in model.parameters())


def test_equal_students_have_equal_bytes(saved, tmp_path):
    folder, model, student = saved
    students.save_student(model, student, tmp_path)
    for name in (students.CONFIG_FILE, students.WEIGHTS_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert students.load_student(tmp_path).weights_sha256 == students.load_student(folder).weights_sha256


def test_embeddings_are_normalised_and_carry_no_gradient(saved):
    ours = students.load_student(saved[0])
    image, text = ours.encode_images(torch.randn(3, 3, 32, 32)), ours.encode_texts(TEXTS)
    for embedding in (image, text):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
        assert not embedding.requires_grad


def test_the_text_module_is_the_whole_text_tower(saved):
    ours = students.load_student(saved[0])
    towers = sum(p.numel() for m in (ours.visual_module, ours.text_module) for p in m.parameters())
    assert towers == ours.parameters_count() - 1  # the logit scale belongs to neither
    tokens = students.tokenize(SMALL, TEXTS)
    torch.testing.assert_close(
        torch.nn.functional.normalize(ours.text_module(tokens), dim=-1), ours.encode_texts(TEXTS), rtol=0, atol=1e-6
    )


def copy(saved, tmp_path):
    for name in (students.CONFIG_FILE, students.WEIGHTS_FILE):
        (tmp_path / name).write_bytes((saved[0] / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", [students.CONFIG_FILE, students.WEIGHTS_FILE])
def test_a_missing_or_cut_file_is_an_input_error(saved, tmp_path, name):
    folder = copy(saved, tmp_path)
    whole = (folder / name).read_bytes()
    for content in (None, b"", whole[: len(whole) // 2]):
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(InputError) as error:
            students.load_student(folder)
        assert name in error.value.problem


def test_weights_of_another_config_are_an_input_error(saved, tmp_path):
    folder = copy(saved, tmp_path)
    other = students.build_student(changed(text_cfg__width=64), seed=0)
    safetensors.torch.save_file(other.state_dict(), folder / students.WEIGHTS_FILE)
    with pytest.raises(InputError, match="another config"):
        students.load_student(folder)


def test_a_config_of_a_wrong_shape_is_an_input_error(saved, tmp_path):
    folder = copy(saved, tmp_path)
    for text in ("[]", "{}", '{"model_cfg": {}, "preprocess_cfg": {}}', '{"model_cfg": 3, "preprocess_cfg": {}}'):
        (folder / students.CONFIG_FILE).write_text(text)
        with pytest.raises(InputError, match=r"open_clip_config\.json"):
            students.load_student(folder)
