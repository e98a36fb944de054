"""Our teacher is the network that open_clip makes of the same tag: pixels, activation, embeddings."""

import io
import warnings

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from open_clip import factory, pretrained
from PIL import Image
from torch import nn

from cliprd.data.augment import eval_view, to_tensor
from cliprd.data.images import decode
from cliprd.models import student as students
from cliprd.models.image_spec import ImageSpec
from cliprd.models.pretrained import resolve
from cliprd.models.student import build_model
from cliprd.models.teacher import build_teacher
from cliprd.params import Teacher
from tests.data.pictures import noise
from tests.models import hub_files

pytestmark = pytest.mark.slow

TAGS = [(arch, tag) for arch, tags in pretrained._PRETRAINED.items() for tag in tags]
FAMILIES = [  # every kind of tower, text tower, pooling, tokenizer, activation and preprocessing
    ("RN50", "openai"),
    ("RN50-quickgelu", "openai"),
    ("ViT-B-32", "openai"),
    ("ViT-B-32", "laion400m_e32"),
    ("ViT-B-32", "laion2b_s34b_b79k"),
    ("ViT-B-16", "metaclip_400m"),
    ("ViT-B-16", "dfn2b"),
    ("ViT-L-14", "laion2b_s32b_b82k"),
    ("ViT-H-14-378", "dfn5b"),
    ("ViT-B-16-plus-240", "laion400m_e32"),
    ("convnext_base", "laion400m_s13b_b51k"),
    ("roberta-ViT-B-32", "laion2b_s12b_b32k"),
    ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k"),
    ("nllb-clip-base", "v1"),
    ("nllb-clip-base-siglip", "v1"),
    ("coca_ViT-B-32", "laion2b_s13b_b90k"),
    ("EVA02-B-16", "merged2b_s8b_b131k"),
    ("ViT-B-16-SigLIP", "webli"),
    ("ViT-B-32-SigLIP2-256", "webli"),
    ("ViT-L-14-CLIPA", "datacomp1b"),
    ("MobileCLIP-S1", "datacompdr"),
    ("MobileCLIP-B", "datacompdr"),
    ("MobileCLIP2-S0", "dfndr2b"),
    ("ViTamin-S", "datacomp1b"),
    ("PE-Core-T-16-384", "meta"),
    ("ViT-H-14-worldwide", "metaclip2_worldwide"),
]
TEXTS = ["a cat", "a photo of the dog sitting beside two red boats on water", "", "the", "two red boats " * 40]


def pictures():
    """Encoded pictures: wide, tall, square, smaller than any tower, grey."""
    found = []
    for size, mode in (((640, 427), "RGB"), ((300, 511), "RGB"), ((256, 256), "RGB"), ((90, 61), "L")):
        file = io.BytesIO()
        Image.fromarray(noise(*size)).convert(mode).resize(size).save(file, "JPEG", quality=92)
        found.append(file.getvalue())
    return found


@pytest.mark.parametrize(("arch", "tag"), FAMILIES, ids=[":".join(family) for family in FAMILIES])
def test_embeddings_are_open_clips(arch, tag, tmp_path, monkeypatch):
    hub_files.shrink(monkeypatch, arch, tmp_path)
    quick = bool(pretrained._PRETRAINED[arch][tag].get("quick_gelu"))
    torch.manual_seed(0)
    fresh = hub_files.randomised(open_clip.create_model(arch, force_quick_gelu=quick, pretrained_text=False))
    state = {name: tensor.contiguous().clone() for name, tensor in fresh.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    hub_files.have_downloaded(monkeypatch, arch, tag, tmp_path / "w.safetensors")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if arch.startswith("roberta") else "error", UserWarning)  # of a mismatch
        theirs, _, transform = open_clip.create_model_and_transforms(arch, tag, force_quick_gelu=quick)
    tokenizer, theirs = open_clip.get_tokenizer(arch), theirs.eval()
    ours = build_teacher(Teacher(name=f"open_clip:{arch}:{tag}"))

    pixels_T = torch.stack([transform(Image.open(io.BytesIO(data))) for data in pictures()])
    pixels_O = to_tensor(np.stack([eval_view(decode(data), ours.image) for data in pictures()]), ours.image)
    torch.testing.assert_close(pixels_O, pixels_T, rtol=0, atol=1e-5)
    with torch.no_grad():
        image_T = nn.functional.normalize(theirs.encode_image(pixels_T), dim=-1)
        text_T = nn.functional.normalize(theirs.encode_text(tokenizer(TEXTS)), dim=-1)
    torch.testing.assert_close(ours.encode_images(pixels_O), image_T, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.encode_texts(TEXTS), text_T, rtol=0, atol=1e-5)
    for one in range(len(TEXTS)):  # a text's length is no matter of its batch
        torch.testing.assert_close(ours.encode_texts(TEXTS[one : one + 1])[0], text_T[one], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor(ours.logit_scale), theirs.logit_scale.exp().squeeze())
    assert ours.dim == image_T.shape[1] == text_T.shape[1]


def test_the_activation_shows_in_the_embeddings(tmp_path, monkeypatch):
    """What the test above compares to 1e-5 is moved a hundred times as far by the other activation."""
    hub_files.shrink(monkeypatch, "ViT-B-32", tmp_path)
    torch.manual_seed(0)
    fresh = hub_files.randomised(open_clip.create_model("ViT-B-32"))
    safetensors.torch.save_file(fresh.state_dict(), tmp_path / "w.safetensors")
    names = [Teacher(name=f"open_clip:ViT-B-32:{tmp_path}/w.safetensors", quickgelu=quick) for quick in (True, False)]
    quick, plain = (build_teacher(name) for name in names)
    assert (quick.encode_texts(TEXTS) - plain.encode_texts(TEXTS)).abs().max() > 1e-3
    image = torch.rand(2, 3, 224, 224)
    assert (quick.encode_images(image) - plain.encode_images(image)).abs().max() > 1e-3
    assert quick.weights_sha256 != plain.weights_sha256, "no weight shows the activation"


class Recorder(nn.Module):
    """In the place of a model: what it was asked to be."""

    def __init__(self, **config):
        super().__init__()
        self.config = {key: value for key, value in config.items() if key != "cast_dtype"}
        self.visual = nn.Module()
        size = config["vision_cfg"].get("image_size", 224)
        self.visual.image_size = (size, size)


@pytest.mark.parametrize(("arch", "tag"), TAGS, ids=[":".join(tag) for tag in TAGS])
def test_every_tag_is_built_and_prepared_as_open_clip_does(arch, tag, tmp_path, monkeypatch):
    kinds = {kind: type(kind, (Recorder,), {}) for kind in ("CLIP", "CustomTextCLIP", "CoCa")}
    for name, kind in kinds.items():
        monkeypatch.setattr(factory, name, kind)
        monkeypatch.setattr(open_clip, name, kind)
    monkeypatch.setattr(students, "_text_tower_config", lambda name: None)
    hub_files.have_downloaded(monkeypatch, arch, tag, tmp_path)
    quick = bool(pretrained._PRETRAINED[arch][tag].get("quick_gelu"))
    theirs, _, transform = open_clip.create_model_and_transforms(
        arch, tag, load_weights=False, force_quick_gelu=quick, pretrained_text=False
    )
    source = resolve(Teacher(name=f"open_clip:{arch}:{tag}"))
    ours = build_model(source.config, where="test")
    assert type(ours) is type(theirs)
    assert ours.config == {"quick_gelu": False, **theirs.config}
    cfg = theirs.visual.preprocess_cfg
    assert (cfg["size"], cfg["fill_color"]) == ((source.image.size,) * 2, 0)
    assert source.image == ImageSpec.from_dict({**cfg, "size": source.image.size})
    image = Image.fromarray(noise(83, 41))
    torch.testing.assert_close(
        to_tensor(eval_view(image, source.image)[None], source.image)[0], transform(image), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "arch", sorted({arch for arch, tag in TAGS if "quick_gelu" in pretrained._PRETRAINED[arch][tag]})
)
def test_the_activations_are_those_of_the_training(arch, monkeypatch):
    """Modules on no device: of every architecture that has a tag trained with QuickGELU, with and without it."""
    monkeypatch.setattr(students, "_text_tower_config", lambda name: None)
    for quick in (True, False):
        if arch.endswith("-quickgelu") and not quick:
            continue
        tag = next(
            (t for a, t in TAGS if a == arch and pretrained._PRETRAINED[a][t].get("quick_gelu", False) is quick), None
        )
        if tag is None:
            continue
        with torch.device("meta"):
            model = build_model(resolve(Teacher(name=f"open_clip:{arch}:{tag}")).config, where="test")
            theirs = open_clip.create_model(arch, force_quick_gelu=quick, device="meta")
        kinds = [(name, type(module)) for name, module in model.named_modules()]
        assert kinds == [(name, type(module)) for name, module in theirs.named_modules()]
        found = {kind for name, kind in kinds if name.endswith("gelu")}
        assert found == {open_clip.transformer.QuickGELU if quick else nn.GELU}
