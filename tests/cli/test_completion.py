"""`cliprd completion`: each script completes commands, options, choices and folders in its real shell."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cliprd import cli

pytestmark = pytest.mark.slow

CASES = [
    ("cliprd pipel", "pipeline"),
    ("cliprd pipeline sched", "schedule"),
    ("cliprd pipeline compile abl", "ablation"),
    ("cliprd prepare --out", "--output"),
    ("cliprd prepare --output fol", "folder/"),
]


def shell(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        reason = f"no {name} here: apt-get install {name}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return program


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Writes a shell's script into a folder that has a file and a folder to complete."""

    def write(name: str) -> str:
        assert cli.main(["completion", name]) == 0
        path = tmp_path / f"script.{name}"
        path.write_text(capsys.readouterr().out)
        return str(path)

    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return write


@pytest.mark.parametrize(("line", "word"), CASES)
def test_bash(script, line, word):
    words = line.split()
    code = (
        f"source {script('bash')}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; "
        f"_shtab_cliprd cliprd '{words[-1]}' '{words[-2]}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    out = subprocess.run([shell("bash"), "--norc", "-c", code], capture_output=True, text=True, check=True).stdout
    assert word.rstrip("/") in [answer.rstrip("/") for answer in out.splitlines()]


@pytest.mark.parametrize(("line", "word"), CASES)
def test_fish(script, line, word):
    code = f"source {script('fish')}; complete -C '{line}'"
    ran = subprocess.run([shell("fish"), "--no-config", "-c", code], capture_output=True, text=True, check=True)
    assert word in [answer.split("\t")[0] for answer in ran.stdout.splitlines()]


@pytest.mark.parametrize(("line", "word"), CASES)
def test_zsh(script, line, word):
    functions = Path(script("zsh")).rename("_cliprd").parent.resolve()
    start = f"PS1='> '; fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy\n"
    with _terminal(shell("zsh"), "-f", "-i") as terminal:
        terminal.type(start)
        terminal.wait("ready")
        terminal.type(f"{line}\t")
        terminal.wait(f"{line.rpartition(' ')[0]} {word}")


class _terminal:
    """A program at a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self._leader, follower = pty.openpty()
        environment = {**os.environ, "TERM": "dumb"}
        self._process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
        os.close(follower)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._leader)

    def type(self, text: str) -> None:
        self._shown = ""
        os.write(self._leader, text.encode())

    def wait(self, text: str) -> None:
        """Read until the text is shown; fails after a minute."""
        end = time.monotonic() + 60
        while text not in self._shown.replace("\r", "").replace("\a", ""):
            ready, _, _ = select.select([self._leader], [], [], max(0.0, end - time.monotonic()))
            assert ready, self._shown
            self._shown += os.read(self._leader, 4096).decode(errors="replace")


def test_without_the_package_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 5
    assert "pip install 'cliprd[completion]'" in capsys.readouterr().err
