"""Weights files as people have them: read without running what is in them, or refused by the first key that is odd."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from torch import nn

from cliprd.errors import InputError
from cliprd.models import weights
from cliprd.models.student import build_model

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 200, "width": 32, "heads": 2, "layers": 2},
}


class Settings(dict):
    """A dictionary's subclass, as configuration libraries have them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.frozen = True


class Meter(list):
    pass


Point = collections.namedtuple("Point", "x y")


def built(seed=0, config=SMALL, **changes):
    torch.manual_seed(seed)
    return build_model({**config, **changes}, where="test")


@pytest.fixture(scope="module")
def model():
    return built(seed=1)


def around():
    """What training programs leave around the tensors."""
    return {
        "name": "run", "epoch": 3, "best": np.float64(0.5), "int": np.int32(3), "array": np.arange(4.0),
        "dtype": np.dtype("float32"), "args": argparse.Namespace(lr=1e-3, out=pathlib.Path("/x")),
        "settings": Settings(a=1, b=Settings(c=2)), "meter": Meter([1, 2]), "point": Point(1, 2),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2]), "when": datetime.datetime(2024, 1, 1), "path": pathlib.Path("/x"),
        "torch": [torch.float16, torch.device("cpu"), torch.Size([1, 2])], "set": {1, 2}, "frozen": frozenset([3]),
        "complex": 1j, "bytes": b"x", "range": range(3), "slice": slice(1, 2), "none": None, "type": int,
        "exception": ValueError("x"), "function": os.path.join, "fraction": np.float32(2),
    }  # fmt: skip


def optimizer_of(model):
    adam = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    state = adam.state_dict()
    state["param_groups"][0]["lr"] = np.float64(0.1)
    return state


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


LAYOUTS = {
    "plain": lambda s, m: s,
    "ordered": lambda s, m: collections.OrderedDict(s),
    "open_clip": lambda s, m: {**around(), "state_dict": prefixed(s, "module."), "optimizer": optimizer_of(m),
                               "scaler": {"scale": 65536.0}},
    "lightning": lambda s, m: {"state_dict": prefixed(s, "model."), "hyper_parameters": Settings(lr=1), **around()},
    "deepspeed": lambda s, m: {"module": s, "ds_config": around(), "dp_world_size": 8},
    "model": lambda s, m: {"model": s, "optimizer": optimizer_of(m), "args": around()["args"]},
    "nested": lambda s, m: {"a": [around(), {"b": ({"net": prefixed(s, "clip.")},)}]},
    "compiled": lambda s, m: prefixed(s, "_orig_mod.module."),
    "compiled_tower": lambda s, m: {n.replace("visual.", "visual._orig_mod."): v for n, v in s.items()},
    "fsdp": lambda s, m: {n.replace("visual.", "_fsdp_wrapped_module.visual."): v for n, v in s.items()},
    "half": lambda s, m: {n: v.half() for n, v in s.items()},
    "bfloat": lambda s, m: {n: v.bfloat16() for n, v in s.items()},
    "parameters": lambda s, m: {n: nn.Parameter(v) for n, v in s.items()},
    "views": lambda s, m: {n: v.t().contiguous().t() if v.ndim == 2 else v for n, v in s.items()},
    "scale_of_one_value": lambda s, m: {n: v.reshape(1) if n == "logit_scale" else v for n, v in s.items()},
    "whole_module": lambda s, m: m,
    "whole_module_wrapped": lambda s, m: {"model": nn.DataParallel(m), **around()},
    "subclass_of_dict": lambda s, m: Settings(state_dict=Settings(s)),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_are_found_in_any_checkpoint_layout(layout, protocol, model, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(LAYOUTS[layout](model.state_dict(), model), path, pickle_protocol=protocol)
    other = built(seed=2)
    weights.check(other, path, arch="small", resize=False)
    assert weights.load(other, path, arch="small", resize=False) == ""
    kind = {"half": torch.float16, "bfloat": torch.bfloat16}.get(layout, torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor.to(kind).float()), name


@pytest.mark.parametrize("make", [torch.jit.trace, torch.jit.script], ids=["trace", "script"])
def test_torchscript_is_read_without_being_run(make, model, tmp_path):
    """OpenAI's own files are such archives."""
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 24, dtype=torch.int64))
    script = make(model.eval(), inputs, check_trace=False) if make is torch.jit.trace else make(model.eval())
    script.save(tmp_path / "ViT.pt")
    other = built(seed=2)
    weights.load(other, tmp_path / "ViT.pt", arch="small", resize=False)
    assert all(torch.equal(other.state_dict()[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", ["weights.safetensors", "pytorch_model.bin", "weights"])
def test_the_format_is_detected_by_content(name, model, tmp_path):
    safetensors.torch.save_file(model.state_dict(), tmp_path / name)
    other = built(seed=2)
    weights.load(other, tmp_path / name, arch="small", resize=False)
    assert torch.equal(other.text_projection, model.text_projection)


def test_torchs_format_before_1_6(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    other = built(seed=2)
    weights.load(other, tmp_path / "old.pt", arch="small", resize=False)
    assert torch.equal(other.text_projection, model.text_projection)
    torch.save({**around(), "state_dict": model.state_dict()}, tmp_path / "o2.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"format before 1\.6.*save its state dict again") as found:
        weights.open_weights(tmp_path / "o2.pt")
    assert_plain(found.value)


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_hugging_faces_layout_gives_the_same_embeddings(kind, custom_text, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig(
        projection_dim=32,
        vision_config={"image_size": 32, "patch_size": 8, "hidden_size": 64, "intermediate_size": 256,
                       "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "quick_gelu"},
        text_config={"vocab_size": 200, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
                     "num_attention_heads": 2, "max_position_embeddings": 24, "eos_token_id": 2,
                     "hidden_act": "quick_gelu"},
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # fresh biases are zero: a swapped one would not be seen
            parameter.add_(torch.randn_like(parameter) * 0.02)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if kind == "bin":
        path = tmp_path / "pytorch_model.bin"
        ids = torch.arange(24)[None]
        torch.save({**theirs.state_dict(), "text_model.embeddings.position_ids": ids}, path)
    ours = built(seed=2, quick_gelu=True, custom_text=custom_text).eval()
    weights.load(ours, path, arch="small", resize=False)
    image = torch.rand(2, 3, 32, 32)
    tokens = torch.tensor([[1, 5, 6, 199, *[0] * 20], [1, 7, 199, *[0] * 21]])
    with torch.no_grad():
        image_T = theirs.visual_projection(theirs.vision_model(pixel_values=image).pooler_output)
        text_T = theirs.text_projection(theirs.text_model(input_ids=tokens).pooler_output)
        torch.testing.assert_close(ours.encode_image(image), image_T, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.encode_text(tokens), text_T, rtol=0, atol=1e-5)


def changed(state, **changes):
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


MISFITS = {
    "missing": (lambda s: changed(s, text_projection=None), "'text_projection' is missing"),
    "unexpected": (lambda s: changed(s, extra=torch.zeros(1)), "'extra' is unexpected"),
    "renamed": (lambda s: {n.replace("ln_final", "norm"): v for n, v in s.items()},
                "'ln_final.weight' is missing, 'norm.weight' is unexpected"),
    "shape": (lambda s: changed(s, positional_embedding=torch.zeros(77, 32)),
              "'positional_embedding' is [77, 32], expected is [24, 32]"),
    "grid": (lambda s: {**s, "visual.positional_embedding": torch.zeros(50, 64)},
             "'visual.positional_embedding' is [50, 64], expected is [17, 64]"),
    "deeper": (lambda s: {**s, "transformer.resblocks.2.ln_1.weight": torch.zeros(32)},
               "'transformer.resblocks.2.ln_1.weight' is unexpected"),
    "array": (lambda s: changed(s, text_projection=s["text_projection"].numpy()), "'text_projection' is no tensor"),
    "int8": (lambda s: changed(s, text_projection=s["text_projection"].to(torch.int8)),
             "'text_projection' is no floating-point tensor"),
    "stray": (lambda s: {**prefixed(s, "model."), "loss.weight": torch.zeros(1)}, "'loss.weight' is unexpected"),
    "no_clip": (lambda s: {"encoder.weight": torch.zeros(2)}, "no tensor in it is called 'logit_scale'"),
    "empty": (lambda s: {}, "no tensor in it is called 'logit_scale'"),
    "list": (lambda s: [1, 2], "no tensor in it is called 'logit_scale'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_the_first_key_that_does_not_fit_is_named(case, model, tmp_path):
    make, said = MISFITS[case]
    torch.save(make(model.state_dict()), tmp_path / "w.pt")
    for call in (weights.check, weights.load):
        with pytest.raises(InputError) as found:
            call(built(seed=2), tmp_path / "w.pt", arch="small", resize=False)
        assert said in str(found.value)
        assert_plain(found.value)


def test_a_tag_of_open_clips_may_be_fitted_to_another_grid(model, tmp_path):
    """open_clip does so with what it downloads; a file of somebody's is refused, as above."""
    state = {**model.state_dict(), "visual.positional_embedding": torch.rand(65, 64)}
    torch.save(state, tmp_path / "w.pt")
    ours, theirs = built(seed=2), built(seed=3)
    weights.load(ours, tmp_path / "w.pt", arch="small", resize=True)
    open_clip.load_checkpoint(theirs, str(tmp_path / "w.pt"))
    assert all(torch.equal(ours.state_dict()[n], t) for n, t in theirs.state_dict().items())


@pytest.mark.parametrize("name", ["state_dict_ema", "ema", "ema_model"])
def test_of_weights_and_average_the_weights_are_loaded_with_a_note(name, model, tmp_path):
    torch.save({name: built(seed=5).state_dict(), "state_dict": model.state_dict()}, tmp_path / "w.pt")
    other = built(seed=2)
    said = weights.load(other, tmp_path / "w.pt", arch="small", resize=False)
    assert said == f"weights 'state_dict' of the file (not '{name}')"
    assert torch.equal(other.text_projection, model.text_projection)


def test_of_several_models_the_one_that_fits_is_loaded(model, tmp_path):
    large = built(seed=3, embed_dim=48).state_dict()
    torch.save({"teacher": large, "student": model.state_dict()}, tmp_path / "w.pt")
    assert "'student'" in weights.load(built(seed=2), tmp_path / "w.pt", arch="small", resize=False)
    joined = {**prefixed(large, "teacher."), **prefixed(model.state_dict(), "student.")}
    torch.save(joined, tmp_path / "v.pt")
    assert "'student'" in weights.load(built(seed=2), tmp_path / "v.pt", arch="small", resize=False)


def test_several_fitting_models_are_refused(model, tmp_path):
    torch.save({"teacher": built(seed=3).state_dict(), "student": model.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"several models that fit small: 'teacher', 'student'"):
        weights.load(built(seed=2), tmp_path / "w.pt", arch="small", resize=False)


@pytest.mark.parametrize("number", [1, 2])
def test_one_file_of_a_split_checkpoint_is_refused(number, model, tmp_path):
    names = sorted(model.state_dict())
    part = names[: len(names) // 2] if number == 1 else names[len(names) // 2 :]
    path = tmp_path / f"model-0000{number}-of-00002.safetensors"
    safetensors.torch.save_file({name: model.state_dict()[name] for name in part}, path)
    with pytest.raises(InputError, match=r"one of several files: join them first"):
        weights.load(built(), path, arch="small", resize=False)


def test_optimiser_states_are_ignored(model, tmp_path):
    averages = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    torch.save({"optimizer": {"exp_avg": averages}, "model": model.state_dict()}, tmp_path / "w.pt")
    other = built(seed=2)
    weights.load(other, tmp_path / "w.pt", arch="small", resize=False)
    assert torch.equal(other.text_projection, model.text_projection)


def test_values_that_are_not_finite_are_refused(model, tmp_path):
    torch.save(changed(model.state_dict(), text_projection=torch.full((32, 32), float("nan"))), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"not finite, in 'text_projection'"):
        weights.load(built(seed=2), tmp_path / "w.pt", arch="small", resize=False)


def test_a_cycle_and_a_deep_nest_end(model, tmp_path):
    loop = {"self": None, "state_dict": model.state_dict()}
    loop["self"] = loop
    deep = []
    for _ in range(200):
        deep = [deep]
    torch.save({"loop": loop, "deep": deep}, tmp_path / "w.pt")
    weights.load(built(seed=2), tmp_path / "w.pt", arch="small", resize=False)


NOT_WEIGHTS = {
    "empty": (b"", "it is empty"),
    "page": (b"<!DOCTYPE html><html>", "it is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "index": (json.dumps({"metadata": {}, "weight_map": {}}).encode(), "index of a checkpoint in several files"),
    "noise": (bytes(range(200, 256)) * 4, "it begins with c8 c9"),
    "cut_zip": (b"PK\x03\x04" + b"\0" * 100, "is damaged"),
    "pickle": (pickle.dumps({"logit_scale": 1}), "format before 1.6"),
    "npy_as_pt": (b"\x93NUMPY\x01\x00", "neither safetensors nor a file of torch.save"),
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_other_files_are_named(case, tmp_path):
    data, said = NOT_WEIGHTS[case]
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(InputError) as found:
        weights.open_weights(tmp_path / "w.pt")
    assert said in str(found.value)
    assert_plain(found.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
        (["zero_to_fp32.py", "mp_rank_00_model_states.pt"], "zero_to_fp32.py"),
        (["model-00001-of-00002.safetensors", "config.json"], "Name a file in it: model-00001-of-00002.safetensors"),
        ([], "Name the file"),
    ],
)
def test_a_folder_is_refused_with_a_remedy(files, said, tmp_path):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="is a folder") as found:
        weights.open_weights(tmp_path)
    assert said in str(found.value)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_truncation_and_flipped_bytes_are_detected(kind, model, tmp_path):
    path = tmp_path / f"w.{kind}"
    if kind == "pt":
        torch.save(model.state_dict(), path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    data = path.read_bytes()
    for cut in (1, 9, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError) as found:
            weights.load(built(seed=2), path, arch="small", resize=False)
        assert_plain(found.value)
    if kind == "pt":  # zip has checksums, safetensors none
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :])
        with pytest.raises(InputError, match="damaged"):
            weights.load(built(seed=2), path, arch="small", resize=False)


# --- hostile files


class Call:
    """Pickled as a call: what runs if the reader calls what it finds."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def hostile(mark):
    shell, code = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, shell),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "getattr": Call(getattr, os.path.join, "__globals__"),
        "popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "open": Call(open, str(mark), "w"),
        "import": Call(__import__, "antigravity"),
        "torch.load": Call(torch.load, str(mark)),
        "torch.hub": Call(torch.hub.load, "a/b", "c"),
        "jit": Call(torch.jit.load, str(mark)),
        "numpy": Call(np.save, str(mark), 1),
        "pickle": Call(pickle.loads, pickle.dumps(Call(os.system, shell))),
        "rebuild": Call(torch._utils._rebuild_tensor_v2, Call(os.system, shell), 0, (1,), (1,), False, {}),
        "ordered": Call(collections.OrderedDict, Call(eval, code)),
    }


CASES = sorted(hostile(pathlib.Path("x")))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_no_code_of_a_file_runs(case, protocol, model, tmp_path):
    mark = tmp_path / "ran"
    torch.save(
        {"x": hostile(mark)[case], "state_dict": model.state_dict()}, tmp_path / "w.pt", pickle_protocol=protocol
    )
    before = set(sys.modules)
    try:
        weights.load(built(seed=2), tmp_path / "w.pt", arch="small", resize=False)
    except InputError as error:
        assert_plain(error)
    assert not list(tmp_path.glob("ran*"))
    assert "antigravity" not in set(sys.modules) - before


@pytest.mark.parametrize("case", CASES)
def test_no_code_of_an_old_file_runs(case, model, tmp_path):
    mark = tmp_path / "ran"
    content = {"x": hostile(mark)[case], "state_dict": model.state_dict()}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError) as found:
        weights.open_weights(tmp_path / "w.pt")
    assert_plain(found.value)
    assert not mark.exists()


PROGRAMS = {  # pickles that no honest program writes
    "state_of_a_function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__call__K\x01sb.",
    "state_of_a_class": b"\x80\x02ccollections\nOrderedDict\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.",
    "state_of_set": b"\x80\x02cbuiltins\nset\nN}X\x03\x00\x00\x00addK\x01s\x86b.",
    "state_of_a_dtype": b"\x80\x02ctorch\nFloatStorage\n}X\x01\x00\x00\x00aK\x01sb.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": b"(S'touch /tmp/x'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'true'\no.",
    "tensor_without_storage": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x01\x85K\x01\x85tR.",
    "negative_offset": None,
    "huge_shape": None,
    "too_few": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "stack": b"\x80\x02.",
    "memo": b"\x80\x02h\x05.",
    "null": b"\x80\x02c\x00\x00\n\x00\nR.",
}


def storage(offset, size, stride):
    """A pickle of one tensor over a storage of four numbers."""
    number = lambda n: b"J" + int(n).to_bytes(4, "little", signed=True)  # noqa: E731
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    body = pid + number(offset) + number(size) + b"\x85" + number(stride) + b"\x85" + b"\x89}"
    return b"\x80\x02}X\x0b\x00\x00\x00logit_scalectorch._utils\n_rebuild_tensor_v2\n(" + body + b"tRs."


PROGRAMS["negative_offset"] = storage(-1, 1, 1)
PROGRAMS["huge_shape"] = storage(0, 2**30, 1)
PROGRAMS["many_elements"] = (
    storage(0, 2**30, 0)
    .replace(b"J\0\0\0\x40\x85", b"(" + b"J\0\0\0\x40" * 3 + b"t")
    .replace(b"J\0\0\0\0\x85\x89", b"(" + b"J\0\0\0\0" * 3 + b"t\x89")
)
PROGRAMS["endless_shape"] = storage(0, 1, 1).replace(b"J\1\0\0\0\x85", b"\x8a\x0a" + b"\1" * 10 + b"\x85", 1)
PROGRAMS["storage_of_less_than_nothing"] = storage(0, 1, 1).replace(b"cpuK\x04", b"cpuJ\xff\xff\xff\xff")
PROGRAMS["state_of_a_tensor"] = storage(0, 1, 1)[:-2] + b"](X\x01\0\0\x000NK\x01J\xf7\xff\xff\xff))ebs."
PROGRAMS["far_stride"] = storage(0, 2, 2**30)
PROGRAMS["beyond"] = storage(4, 1, 1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_malicious_pickles_are_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("w/data.pkl", PROGRAMS[name])
        file.writestr("w/data/0", np.zeros(4, np.float32).tobytes())
    with pytest.raises(InputError) as found:
        opened = weights.open_weights(tmp_path / "w.pt")
        weights.load(built(), tmp_path / "w.pt", arch="small", resize=False)
        assert opened
    assert_plain(found.value)


@pytest.mark.parametrize(("offset", "size", "stride"), [(0, 2**30, 1), (0, 2, 2**30), (4, 1, 1), (2, 3, 1)])
def test_no_tensor_reaches_beyond_its_storage(offset, size, stride, tmp_path):
    from cliprd.models.pickled import Archive, Unreadable

    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("w/data.pkl", storage(offset, size, stride))
        file.writestr("w/data/0", np.zeros(4, np.float32).tobytes())
    archive = Archive(tmp_path / "w.pt")
    with pytest.raises(Unreadable, match="shorter"):
        archive.read(archive.content["logit_scale"])


def test_a_compressed_archive_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/data.pkl", b"\x80\x02}." + b"\0" * 10_000_000)
    with pytest.raises(InputError, match="compressed"):
        weights.open_weights(tmp_path / "w.pt")


def test_another_byte_order_is_refused(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("w/data.pkl", storage(0, 1, 1))
        file.writestr("w/byteorder", "big")
    with pytest.raises(InputError, match="another byte order"):
        weights.open_weights(tmp_path / "w.pt")


def assert_plain(error):
    """One line, no colours, no advice against safety."""
    text = str(error)
    assert not [word for word in ("\n", "\x1b", "weights_only", "safe_globals") if word in text]
    assert len(text) < 700
