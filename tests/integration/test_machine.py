"""Machines that are not fit: a real full disk, a real read-only file system, a teacher that is not there."""

import subprocess

import pytest

from tests.integration.pipeline import DEMO, ROOT, environment

pytestmark = pytest.mark.integration


def namespaces() -> bool:
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="this kernel lets nobody mount a file system of their own (unshare -rm)")
@pytest.mark.parametrize(
    ("options", "words"), [("size=400k", "No space left"), ("ro", "cannot be written")], ids=["full", "read-only"]
)
def test_full_and_read_only_disks_are_one_clear_line(tmp_path, options, words):
    script = (
        f"mount -t tmpfs -o {options} tmpfs {tmp_path} && "
        f"exec cliprd prepare --output {tmp_path}/out --set data.path={DEMO}/train/00000.tar.gz"
    )
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 5, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("cliprd: error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "code"),
    [("open_clip:ViT-B-32:/nowhere/weights.safetensors", 3), ("open_clip:ViT-B-23:openai", 2)],
    ids=["file", "architecture"],
)
def test_a_missing_teacher_is_one_clear_line(tmp_path, name, code):
    tar = f"data.path={DEMO}/benchmark/tuxpaint_captions/test/0.tar"
    shards = ["cliprd", "prepare", "--output", tmp_path / "shards", "--set", tar]
    subprocess.run(shards, cwd=ROOT, env=environment(), check=True)
    command = ["cliprd", "teacher", "--shards", tmp_path / "shards", "--output", tmp_path / "t"]
    result = subprocess.run(
        [*command, "--set", f"teacher.name={name}"], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert name.rsplit(":", 1)[1] in result.stderr or "ViT-B-23" in result.stderr
