"""Inputs are verified once in a command, whatever the number of its processes and of packages that read them."""

import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cliprd import params
from cliprd.artifact import manifest
from cliprd.errors import InputError
from cliprd.models.load import load_encoder
from cliprd.storage import content
from tests.distill.rooms import make_params

ROOT = Path(__file__).parents[2]
WATCH = """
import os, sys
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(os.environ["WATCHED"]):
        log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, f"{os.getpid()} {os.path.relpath(arguments[0], os.environ['WATCHED'])}\\n".encode())
        os.close(log)
sys.addaudithook(hook)
"""


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setattr(content, "SETTLED", 0.0)
    monkeypatch.setattr(content, "_VERIFIED", {})  # of other tests in this process


def opened(tmp_path, rooms, *arguments) -> dict[str, list[int]]:
    """Runs `cliprd`; file below `rooms` -> how often each process has opened it."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    log = tmp_path / "opened"
    path = f"{tmp_path / 'watch'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WATCHED": f"{rooms}/"}
    ended = subprocess.run(
        [sys.executable, "-m", "cliprd.cli", *map(str, arguments)],
        env={**os.environ, **environment, "OPENED": str(log)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    counts = collections.Counter(line.partition(" ")[::2] for line in log.read_text().splitlines())
    found = collections.defaultdict(list)
    for (_, name), count in sorted(counts.items()):
        found[name].append(count)
    return found


def test_with_two_processes_every_input_is_verified_once(rooms, tmp_path):
    """The process that is started reads every file to verify it; each rank then reads what it trains on."""
    (tmp_path / "params.yaml").write_text(params.dump(make_params(rooms, processes=2)))
    folders = ["--shards", rooms / "shards", "--cache", rooms / "cache", "--output", tmp_path / "student"]
    found = opened(tmp_path, rooms, "distill", "--params", tmp_path / "params.yaml", *folders)
    for folder in ("shards", "cache"):
        for name in manifest.read(rooms / folder).files:
            processes = sorted(found[f"{folder}/{name}"])
            if name.endswith(".tar"):
                assert processes == [1, 1, 1], name
            elif name.endswith(".safetensors"):
                assert processes == [1, 2, 2], name  # a rank reads its header, and maps it


def test_a_model_is_read_once_to_verify_it_and_once_to_load_it(rooms, monkeypatch):
    reads = collections.Counter()
    hashed = content._hashed
    monkeypatch.setattr(content, "_hashed", lambda path: (reads.update([Path(path).name]), hashed(path))[1])
    folder = rooms / "teacher"
    manifest.verify(folder)
    load_encoder(folder, make_params(rooms), device=torch.device("cpu"))
    assert set(reads) == set(manifest.read(folder).files)
    assert set(reads.values()) == {1}


def test_damage_between_two_looks_is_found(rooms, tmp_path):
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(rooms / "cache"), str(folder)], check=True)
    manifest.verify(folder)
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="is damaged: sha256"):
        manifest.verify(folder)


def test_a_child_believes_its_parent_only_while_the_file_is_the_same(tmp_path):
    path = tmp_path / "file"
    path.write_text("1")
    known = {str(path): [content._stamp(str(path)), "f" * 64]}
    content.learn(known)
    assert content.sha256(path) == "f" * 64
    path.write_text("22")
    assert content.sha256(path) != "f" * 64
