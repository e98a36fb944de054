"""What a teacher's name means, who says so, and what is refused before a weight is read."""

import copy
import json
import subprocess
import sys

import open_clip
import pytest
import safetensors.torch
import torch
from open_clip import factory, pretrained

from cliprd import params
from cliprd import plan as planning
from cliprd.data.count import PairCount
from cliprd.errors import InputError, MachineError, ParamsError, RetryableError
from cliprd.models import hub, student, text
from cliprd.models.identity import shaping, weights_version
from cliprd.models.load import load_encoder
from cliprd.models.pretrained import resolve
from cliprd.params import Preprocess, Teacher
from cliprd.stages import teacher as stage
from tests.models import hub_files

UNKNOWN = PairCount(None, "not looked for")
OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
PLAIN = {**OPENAI, "interpolation": "bicubic", "resize_mode": "shortest"}


def plan(tree, pairs=UNKNOWN):
    """`cliprd plan`."""
    return planning.plan(tree, pairs)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("arch", "quick", "said"),
    [
        ("RN50", True, "all 3 tags of RN50 agree"),
        ("ViT-B-32-quickgelu", True, "architecture ViT-B-32-quickgelu"),
        ("ViT-L-14-336", True, "ViT-L-14-336's only tag, openai"),
        ("convnext_base", False, "convnext_base's only tag, laion400m_s13b_b51k"),
        ("ViT-S-16", False, "ViT-S-16 has no pretrained tag"),
        ("ViT-T-16", False, "ViT-T-16 has no pretrained tag"),
    ],
)
def test_the_activation_of_a_file_is_resolved(arch, quick, said, file):
    found = resolve(Teacher(name=f"open_clip:{arch}:{file}"))
    assert found.quick_gelu is found.config["quick_gelu"] is quick
    assert said in found.decided_by["quick_gelu"]


@pytest.mark.parametrize("arch", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14"])
def test_where_tags_disagree_the_activation_must_be_given(arch, file):
    chosen = Preprocess(**PLAIN)
    with pytest.raises(ParamsError, match=r"teacher.quickgelu must be given .* were, .* were not"):
        resolve(Teacher(name=f"open_clip:{arch}:{file}", preprocess=chosen))
    for quick in (True, False):
        found = resolve(Teacher(name=f"open_clip:{arch}:{file}", quickgelu=quick, preprocess=chosen))
        assert (found.quick_gelu, found.decided_by["quick_gelu"]) == (quick, "teacher.quickgelu")


@pytest.mark.parametrize(
    ("arch", "mean", "mode", "interpolation"),
    [
        ("MobileCLIP-S1", 0.0, "shortest", "bilinear"),
        ("MobileCLIP2-S0", 0.0, "shortest", "bilinear"),
        ("ViT-B-16-SigLIP", 0.5, "squash", "bicubic"),
        ("PE-Core-B-16", 0.5, "squash", "bilinear"),
        ("ViT-L-14-CLIPA", 0.485, "squash", "bilinear"),
        ("ViT-S-16", 0.48145466, "shortest", "bicubic"),
    ],
)
def test_the_preprocessing_of_a_file_is_that_of_its_architectures_tags(arch, mean, mode, interpolation, file):
    image = resolve(Teacher(name=f"open_clip:{arch}:{file}")).image
    assert (image.mean[0], image.resize_mode, image.interpolation) == (mean, mode, interpolation)


@pytest.mark.parametrize("arch", ["ViT-L-14", "ViT-H-14"])
def test_where_tags_disagree_the_preprocessing_must_be_given(arch, file):
    name = f"open_clip:{arch}:{file}"
    with pytest.raises(
        ParamsError, match=r"teacher.preprocess must be given .*(mean 0.481.*mean 0.5|shortest.*squash)"
    ):
        resolve(Teacher(name=name, quickgelu=False))
    tag = {"ViT-L-14": "laion2b_s32b_b82k", "ViT-H-14": "dfn5b"}[arch]
    image, facts = resolve(Teacher(name=name, quickgelu=False, preprocess=tag)).image, pretrained._PRETRAINED[arch][tag]
    assert (image.mean, image.resize_mode) == (tuple(facts["mean"]), facts["resize_mode"])
    with pytest.raises(ParamsError, match=r"no tag of .* Did you mean 'laion2b_s32b_b"):
        resolve(Teacher(name=name, quickgelu=False, preprocess="laion2b_s32b_b80k"))


def test_parameters_for_a_file_win_over_what_its_tags_agree_on(file):
    chosen = Preprocess(**{**PLAIN, "resize_mode": "longest"})
    found = resolve(Teacher(name=f"open_clip:RN50:{file}", quickgelu=False, preprocess=chosen))
    assert (found.quick_gelu, found.image.resize_mode) == (False, "longest")
    assert set(found.decided_by.values()) == {"teacher.quickgelu", "teacher.preprocess"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "open_clip:RN50:openai", "quickgelu": False}, r"quickgelu is false, but tag .*:openai says true"),
        ({"name": "open_clip:ViT-B-32:laion2b_e16", "quickgelu": True}, r"is true, but tag .*laion2b_e16 says false"),
        (
            {"name": "open_clip:ViT-L-14:openai", "preprocess": "laion2b_s32b_b82k"},
            r"is mean 0.5.*openai says mean 0.48",
        ),
    ],
)
def test_a_parameter_that_contradicts_a_tag_is_an_error(given, said):
    with pytest.raises(ParamsError, match=said):
        resolve(Teacher(**given))


def test_a_parameter_may_repeat_what_a_tag_says():
    name = "open_clip:RN50:openai"
    assert resolve(Teacher(name=name, quickgelu=True, preprocess="openai")) == resolve(Teacher(name=name))


def test_a_config_beside_the_file_decides(file, tmp_path):
    before = weights_version(Teacher(name=f"open_clip:ViT-B-32:{file}"))
    preprocess = {"mean": 0.5, "std": [0.5] * 3, "interpolation": "random", "resize_mode": "squash", "size": 99}
    said = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    name = f"open_clip:ViT-B-32:{file}"
    found = resolve(Teacher(name=name))
    assert found.quick_gelu
    assert found.image.to_dict() == {
        "size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash",
    }  # fmt: skip
    with pytest.raises(ParamsError, match=r"is false, but open_clip_config\.json beside it says true"):
        resolve(Teacher(name=name, quickgelu=False))
    assert weights_version(Teacher(name=name)) != before, "another config beside a file is another teacher"
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match=r"open_clip_config\.json is no JSON"):
        resolve(Teacher(name=name))


@pytest.mark.parametrize(("vision", "quick"), [({"hidden_act": "gelu"}, False), ({}, True)])
def test_hugging_faces_config_beside_the_file_says_the_activation(vision, quick, file, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    assert resolve(Teacher(name=f"open_clip:ViT-B-32:{file}")).quick_gelu is quick


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("RN5:openai", ParamsError, "Did you mean RN50"),
        ("vit-b-32:openai", ParamsError, "Did you mean ViT-B-32"),
        ("RN50:opnai", ParamsError, "Did you mean 'openai'"),
        ("RN50:laion400m_e32", ParamsError, "It is one of ViT-B-32"),
        ("RN50:/nowhere/w.pt", InputError, "/nowhere/w.pt do not exist"),
        ("RN50:w.ckpt", InputError, "w.ckpt do not exist"),
    ],
)
def test_plan_refuses_teachers_that_cannot_be_loaded(name, kind, said):
    tree = params.validate({"teacher": {"name": f"open_clip:{name}"}}, where="test")
    with pytest.raises(kind, match=said):
        plan(tree, UNKNOWN)


def test_plan_checks_a_weights_file(tmp_path, monkeypatch):
    hub_files.shrink(monkeypatch, "RN50", tmp_path)
    state = open_clip.create_model("RN50").state_dict()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    tree = params.validate({"teacher": {"name": f"open_clip:RN50:{tmp_path}/w.safetensors"}}, where="test")
    text = plan(tree, UNKNOWN)
    assert "weights fit the architecture" in text
    assert "QuickGELU; pictures: mean 0.481" in text
    assert "(all 3 tags of RN50 agree)" in text
    safetensors.torch.save_file({k: v for k, v in state.items() if k != "logit_scale"}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="no tensor in it is called 'logit_scale'"):
        plan(tree, UNKNOWN)
    assert "will be downloaded" in plan(
        params.validate({"teacher": {"name": "open_clip:RN50:cc12m"}}, where="test"), UNKNOWN
    )


def test_the_resolved_choice_is_recorded_in_the_teachers_folder(tmp_path, monkeypatch, capsys):
    hub_files.shrink(monkeypatch, "ViT-B-32", tmp_path)
    torch.save({"state_dict": open_clip.create_model("ViT-B-32").state_dict()}, tmp_path / "w.pt")
    chosen = {**PLAIN, "resize_mode": "squash"}
    name = f"open_clip:ViT-B-32:{tmp_path}/w.pt"
    tree = params.validate({"teacher": {"name": name, "quickgelu": True, "preprocess": chosen}}, where="test")
    made = stage.run(tree, {}, tmp_path / "teacher")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "QuickGELU (teacher.quickgelu); pictures: mean 0.481" in line
    said = json.loads((tmp_path / "teacher/teacher.json").read_text())
    assert (said["quick_gelu"], said["image"]["resize_mode"]) == (True, "squash")
    assert said["decided_by"] == {"quick_gelu": "teacher.quickgelu", "preprocess": "teacher.preprocess"}
    loaded = load_encoder(tmp_path / "teacher", tree)
    assert (loaded.image.resize_mode, loaded.weights_sha256) == ("squash", said["weights_sha256"])
    other = params.validate({"teacher": {"name": name, "quickgelu": False, "preprocess": chosen}}, where="test")
    assert stage.run(other, {}, tmp_path / "plain").fingerprint != made.fingerprint
    assert shaping(other.teacher) != shaping(tree.teacher)


@pytest.mark.parametrize("given", [{"quickgelu": False}, {"preprocess": "openai"}])
def test_the_demo_teacher_takes_neither(given):
    with pytest.raises(ParamsError, match="'aligned' takes neither"):
        params.validate({"teacher": {"name": "aligned", **given}}, where="test")


# --- CoCa, and what lies on a hub


@pytest.mark.parametrize("arch", ["coca_ViT-B-32", "coca_ViT-L-14", "coca_base", "coca_roberta-ViT-B-32"])
def test_coca_as_a_student_is_refused_by_name(arch):
    with pytest.raises(ParamsError, match=rf"{arch} is a CoCa.*can be a teacher, not a student"):
        plan(params.validate({"student": {"arch": arch}}, where="test"), UNKNOWN)
    config = copy.deepcopy(open_clip.get_model_config(arch))
    with pytest.raises(ParamsError, match="is a CoCa"):
        plan(params.validate({"student": {"config": config}}, where="test"), UNKNOWN)


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "m2m_100", "mt5"])
def test_text_towers_of_hugging_face_take_texts_of_any_length(kind, tmp_path):
    """mT5 names no length at all, RoBERTa one that is longer than the tokenizer's."""
    folder = str(hub_files.write_text_config(tmp_path, kind))
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"hf_model_name": folder, "hf_tokenizer_name": folder, "hf_proj_type": "linear"},
    }
    model = student.build_model(config, where="test").eval()
    tokens = text.tokenize(config, ["a cat", "the dog sitting beside two red boats"])
    with torch.no_grad():
        torch.testing.assert_close(text.encode_text_features(model, tokens), model.encode_text(tokens))


@pytest.mark.parametrize(
    ("name", "offline", "code"),
    [("roberta-ViT-B-32", "1", 3), ("ViT-B-16-SigLIP", "1", 3), ("ViT-L-14-CLIPA", "1", 3)],
)
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_missing_tokenizer_fails_at_the_start(name, offline, code, role, tmp_path):
    tag = next(iter(pretrained._PRETRAINED[name]))
    key = f"student.arch={name}" if role == "student" else f"teacher.name=open_clip:{name}:{tag}"
    env = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline, "HOME": str(tmp_path)}
    (tmp_path / "params.yaml").write_text("{}")
    command = [sys.executable, "-m", "cliprd.cli", "plan", "--set", key]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1
    assert "is not on this machine, and HF_HUB_OFFLINE is set" in done.stderr


def raised(*errors):
    """The last error, raised while the ones before it were handled, as clients wrap them."""
    try:
        for error in errors[:-1]:
            try:
                raise error
            except type(error):
                raise errors[-1] from error
        raise errors[-1]
    except type(errors[-1]) as error:
        return error


class LocalEntryNotFoundError(OSError):
    __module__ = "huggingface_hub.errors"


class RepositoryNotFoundError(OSError):
    __module__ = "huggingface_hub.errors"


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([LocalEntryNotFoundError("x"), OSError("We couldn't connect")], RetryableError),
        ([ConnectionResetError("x"), FileNotFoundError("Failed to download")], RetryableError),
        ([TimeoutError("x")], RetryableError),
        ([RepositoryNotFoundError("404"), OSError("is not a valid model identifier")], InputError),
        ([ImportError("sentencepiece"), ValueError("x")], MachineError),
        ([PermissionError("x"), OSError("x")], MachineError),
        ([OSError(28, "No space left on device")], MachineError),
        ([ValueError("a damaged tokenizer.json")], InputError),
    ],
)
def test_failed_downloads_are_retryable_or_not(errors, kind, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    found = hub.unreachable("The tokenizer 'x'", raised(*errors))
    assert type(found) is kind
    assert "\n" not in str(found)


def test_open_clips_own_lists_are_read_only():
    """Resolving a name changes no configuration of open_clip's."""
    before = copy.deepcopy((factory._MODEL_CONFIGS, pretrained._PRETRAINED))
    resolve(Teacher(name="open_clip:RN50:openai"))
    assert before == (factory._MODEL_CONFIGS, pretrained._PRETRAINED)
