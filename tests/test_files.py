"""Temporary files: replaced in one step, removed when their writer was killed, never while it lives."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from cliprd import files

WRITER = """
import sys, time
from pathlib import Path
from cliprd import files
with files.atomic_write(Path(sys.argv[1])) as file:
    file.write(b'half'); file.flush()
    print('in', flush=True)
    sys.stdin.readline()
"""
FOLDER = """
import sys
from pathlib import Path
from cliprd import files
with files.temporary_folder(Path(sys.argv[1]), 'model') as folder:
    (folder / 'weights').write_bytes(b'x' * 1000)
    print('in', flush=True)
    sys.stdin.readline()
"""


def started(code, path):
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    return process


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_live_writers_file_stays_and_a_killed_ones_is_swept(tmp_path):
    path = tmp_path / "model.safetensors"
    writer = started(WRITER, path)
    try:
        (left,) = tmp_path.iterdir()
        for sweep in (files.sweep_below, lambda _: files.sweep_beside(path)):
            sweep(tmp_path)
            assert left.exists()
        writer.communicate("go\n")
        assert (writer.returncode, path.read_bytes(), os.listdir(tmp_path)) == (0, b"half", [path.name])
    finally:
        writer.kill()
        writer.communicate()
    for sweep in (files.sweep_below, lambda _: files.sweep_beside(path)):
        killed(started(WRITER, path))
        assert len(os.listdir(tmp_path)) == 2
        sweep(tmp_path)
        assert os.listdir(tmp_path) == [path.name]


def test_only_that_files_leftovers_are_swept_beside_it(tmp_path):
    for name in (".a.json.x1.tmp", ".b.json.x1.tmp", "a.json.tmp", ".a[1].x.tmp"):
        (tmp_path / name).write_text("x")
    files.sweep_beside(tmp_path / "a.json")
    assert sorted(os.listdir(tmp_path)) == [".a[1].x.tmp", ".b.json.x1.tmp", "a.json.tmp"]
    files.sweep_beside(tmp_path / "a[1]")
    assert sorted(os.listdir(tmp_path)) == [".b.json.x1.tmp", "a.json.tmp"]


def test_a_killed_writers_folder_is_swept_by_the_next(tmp_path):
    live, dead = started(FOLDER, tmp_path), started(FOLDER, tmp_path)
    killed(dead)
    assert len(os.listdir(tmp_path)) == 2
    with files.temporary_folder(tmp_path, "model") as mine:
        assert mine.is_dir()
        assert len(os.listdir(tmp_path)) == 2
        assert len(list(tmp_path.glob("*/content/weights"))) == 1
    live.communicate("go\n")
    assert (live.returncode, os.listdir(tmp_path)) == (0, [])


def test_without_locks_age_decides(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refused)
    young, old = tmp_path / ".x.1.tmp", tmp_path / ".x.2.tmp"
    for path in (young, old):
        path.write_text("half")
    os.utime(old, (0, time.time() - files.ABANDONED - 60))
    files.sweep_below(tmp_path)
    assert os.listdir(tmp_path) == [young.name]
    with files.atomic_write(tmp_path / "y") as file:
        file.write(b"1")
    assert (tmp_path / "y").read_bytes() == b"1"


def test_a_file_swept_before_its_lock_is_created_again(tmp_path, monkeypatch):
    real, done = fcntl.flock, []

    def swept_first(handle, how):
        if not done:
            done.append(handle)
            (left,) = tmp_path.iterdir()
            left.unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    with files.atomic_write(tmp_path / "x") as file:
        file.write(b"1")
    assert (os.listdir(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"1")


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_special_files_are_neither_opened_nor_followed(tmp_path, kind):
    other = tmp_path / "other"
    other.write_text("x")
    stray = tmp_path / ".y.1.tmp"
    os.mkfifo(stray) if kind == "fifo" else stray.symlink_to(other)
    files.sweep_below(tmp_path)
    assert other.read_text() == "x"


@pytest.mark.parametrize("name", ["x" * 255, "\u4e2d" * 85, "y" * 201, "x" * 243 + ".safetensors", "caf\udce9" * 40])
def test_any_name_that_a_file_system_takes_can_be_written_and_swept(tmp_path, name):
    path = tmp_path / name
    with files.atomic_write(path) as file:
        file.write(b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    with files.atomic_write(path) as file:
        (left,) = (entry for entry in tmp_path.iterdir() if entry != path)
        other = left.with_name(left.name.replace(".tmp", "0.tmp"))
        other.touch()
        files.sweep_beside(path)
        assert left.exists()
        assert not other.exists()


def test_write_errors_name_the_file(tmp_path):
    code = """
import resource, signal, sys
from pathlib import Path
from cliprd.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_write(Path(sys.argv[1])) as file:
        file.write(b"x" * 100_000)
except OSError as error:
    print(error.filename)
"""
    path = tmp_path / "big"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert run.stdout == f"{path}\n", run.stderr
    assert not list(tmp_path.iterdir())
