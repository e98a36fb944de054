"""The whole stage on real inputs: its folder, its death at any moment, its refusals."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from cliprd.artifact import manifest
from cliprd.errors import DivergedError, InputError
from cliprd.models.student import load_student
from cliprd.stages import distill
from tests.distill.rooms import SAMPLES, make_params

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILES = {
    "lineage.json",
    "history.csv",
    "image.onnx",
    "loss.safetensors",
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "text.onnx",
}


def inputs(rooms):
    return {"shards": rooms / "shards", "cache": rooms / "cache"}


def run(rooms, output, report=None, **options):
    return distill.run(make_params(rooms, **options), inputs(rooms), output, report=report)


@pytest.fixture(scope="module")
def student(rooms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "clip_rd-raw-0"
    run(rooms, folder)
    return folder


def test_the_student_folder_has_its_files_and_facts(rooms, student):
    found = manifest.verify(student, stage="distill")
    assert set(found.files) == FILES
    assert not (student / ".checkpoint").exists()
    assert not (student / ".work.json").exists()
    assert (student / "volatile/throughput.csv").is_file()
    facts = found.facts
    assert (facts["run"], facts["method"], facts["scale_mode"], facts["seed"]) == ("clip_rd-raw-0", "clip_rd", "raw", 0)
    assert facts["weights"]["fd"] == 2000
    assert facts["steps"] == 15
    assert facts["samples_seen"] == 3 * SAMPLES
    assert (
        facts["inputs"]
        == found.inputs
        == {
            "shards": manifest.read(rooms / "shards").fingerprint,
            "cache": manifest.read(rooms / "cache").fingerprint,
        }
    )
    assert set(found.params) == {"student", "distill", "augmentation"}
    encoder = load_student(student)
    assert facts["parameters"]["student"] == encoder.parameters_count()
    assert set(load_file(student / "loss.safetensors")) >= {"cross_scale", "image_scale", "text_scale"}
    total = sum(v for k, v in facts["final"].items() if k not in ("loss", "grad_norm"))
    assert facts["final"]["loss"] == pytest.approx(total, rel=1e-6)


def test_open_clip_loads_what_was_trained(student):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{student}")
    weights = load_file(student / "open_clip_model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items() if name in weights)
    assert "logit_scale" in weights


def test_finished_work_is_not_done_again(rooms, student):
    before = {p: p.stat().st_mtime_ns for p in student.rglob("*")}
    (student / ".checkpoint").mkdir()  # a kill came between the manifest and the removal
    records = []
    run(rooms, student, records.append)
    assert records == []
    assert not (student / ".checkpoint").exists()
    after = {p: p.stat().st_mtime_ns for p in student.rglob("*")}
    assert {p: t for p, t in after.items() if p.is_file()} == {p: t for p, t in before.items() if p.is_file()}


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["record:8", "checkpoint:10", "exported"])
def test_killed_at_any_moment_it_ends_in_the_same_files(rooms, student, tmp_path, moment):
    output = tmp_path / "student"
    command = [sys.executable, "-m", "tests.distill.child", str(rooms), str(output), moment]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (output / "manifest.json").exists()
    records = []
    resumed = run(rooms, output, records.append)
    first = {"record:8": 6, "checkpoint:10": 6}.get(moment)  # from the checkpoint of step 5; otherwise nothing is left
    assert [r.step for r in records][:1] == ([first] if first else [])
    undisturbed = manifest.read(student)
    assert resumed.files == undisturbed.files  # sha256 of weights, loss, ONNX, history
    assert resumed.fingerprint == undisturbed.fingerprint
    assert not (output / ".checkpoint").exists()


def test_after_a_damaged_checkpoint_is_deleted_the_training_resumes(rooms, student, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record.step == 12:
            raise Stop

    with pytest.raises(Stop):
        run(rooms, tmp_path, stop)
    damaged = tmp_path / ".checkpoint/step-00000010.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    with pytest.raises(InputError, match=r"step-00000010\.safetensors is damaged.*Delete this file.*step 5"):
        run(rooms, tmp_path)
    damaged.unlink()
    assert run(rooms, tmp_path).files == manifest.read(student).files


def test_other_parameters_start_a_new_training(rooms, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    with pytest.raises(Stop):
        run(rooms, tmp_path, stop, log_every=6)
    assert (tmp_path / ".checkpoint").exists()
    records = []
    run(rooms, tmp_path, records.append, method="baseline", lr=2e-3, log_every=1)
    assert records[0].step == 1
    assert manifest.read(tmp_path).facts["weights"]["hrd"] == 0
    assert load_file(tmp_path / "loss.safetensors") == {}


def test_a_flipped_byte_in_an_input_is_named(rooms, tmp_path):
    for name, file in (("shards", "pictures-00001.tar"), ("cache", "pictures-00002.safetensors")):
        copy = tmp_path / f"copy-{name}"
        shutil.copytree(rooms, copy)
        path = copy / name / file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{file} is damaged"):
            distill.run(make_params(rooms), inputs(copy), tmp_path / "out")


def test_a_diverged_run_leaves_no_manifest(rooms, tmp_path):
    with pytest.raises(DivergedError):
        run(rooms, tmp_path, method="baseline", lr=1e30, warmup_steps=0, checkpoint_every=1, clip_grad_norm=None)
    assert not (tmp_path / "manifest.json").exists()
    assert list((tmp_path / ".checkpoint").glob("*.safetensors"))


def test_the_student_beats_chance_on_its_own_pictures(rooms, tmp_path):
    """It has learned: pictures find their own caption far more often than 1 in 48."""
    run(rooms, tmp_path, method="baseline", epochs=120, batch_size=24, lr=3e-3, checkpoint_every=1000, log_every=60)
    encoder = load_student(tmp_path)
    from cliprd.data.augment import eval_view, to_tensor
    from cliprd.data.images import decode
    from cliprd.data.shards import ShardSet

    shards = ShardSet.open(rooms / "shards")
    samples = [sample for shard in shards.shards for sample in shards.read(shard)]
    pixels = np.stack([eval_view(decode(sample.image), encoder.image) for sample in samples])
    images = encoder.encode_images(to_tensor(pixels, encoder.image))
    texts = encoder.encode_texts([sample.captions[0] for sample in samples])
    hits = ((images @ texts.T).argmax(dim=1) == torch.arange(SAMPLES)).float().mean().item()
    assert hits > 12 / SAMPLES
