"""The command line as a user meets it: help, exit codes, one clear line for each failure."""

import subprocess
import sys
from pathlib import Path

import pytest

from cliprd import cli

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden"
COMMANDS = [
    "init", "completion", "inputs", "prepare", "teacher", "cache", "merge", "distill", "benchmark", "compare",
    "promote", "rollback", "retrain", "pipeline", "ablation", "params", "plan", "lineage", "doctor",
]  # fmt: skip


def cliprd(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cliprd.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=options.pop("cwd", ROOT), **options)


def failed(result, code: int, *parts: str) -> None:
    """One line on stderr, the right exit code, no traceback."""
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("cliprd: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in errors[0]


def test_help_is_what_was_agreed(monkeypatch):
    """Outside things call these names; run with CLIPRD_UPDATE_GOLDEN=1 to accept a deliberate change."""
    import os

    monkeypatch.setenv("COLUMNS", "100")
    root = cli.parser()
    subparsers = root._subparsers._group_actions[0].choices
    assert list(subparsers) == COMMANDS
    groups = [subparsers[name]._subparsers for name in COMMANDS if subparsers[name]._subparsers is not None]
    actions = [action for group in groups for action in group._group_actions[0].choices.values()]
    parsers = [root, *(subparsers[name] for name in COMMANDS), *actions]
    text = "\n".join(each.format_help() for each in parsers)
    golden = GOLDEN / "help.txt"
    if os.environ.get("CLIPRD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_command_prints_help_and_fails():
    result = cliprd()
    assert result.returncode == 2
    assert "usage: cliprd" in result.stdout


def test_version():
    from cliprd import __version__

    assert cliprd("--version").stdout.strip() == __version__


@pytest.mark.parametrize("command", [["params"], ["plan"], ["prepare", "--output", "unused"]])
def test_a_wrong_key_is_exit_2_on_every_command(command):
    result = cliprd(*command, "--set", "distill.epoch=3")
    failed(result, 2, "distill.epoch", "did you mean 'distill.epochs'")


def test_params_prints_the_resolved_tree(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("distill: {epochs: 7}")
    out = cliprd("params", "--params", str(file), "--set", "distill.lr=5e-4").stdout
    assert "epochs: 7" in out
    assert "lr: 0.0005" in out
    assert "confidence: 0.95" in out


def test_missing_input_folder_is_exit_3_and_says_what_to_run(tmp_path):
    result = cliprd("cache", "--shards", str(tmp_path / "no"), "--teacher", "t", "--output", str(tmp_path / "out"))
    failed(result, 3, str(tmp_path / "no"), "does not exist", "cliprd prepare")


def test_debug_shows_the_traceback(tmp_path):
    arguments = ["cache", "--shards", "none", "--teacher", "t", "--output", str(tmp_path / "out"), "--debug"]
    assert "Traceback" in cliprd(*arguments).stderr


def test_method_and_seed_are_short_for_overrides(tmp_path):
    arguments = ["--shards", "s", "--cache", "c", "--output", str(tmp_path / "o")]
    failed(cliprd("distill", "--method", "clp", *arguments), 2, "distill.method", "clip_kd")
    failed(cliprd("distill", "--seed", "-1", *arguments), 2, "distill.seed")


def test_doctor_tells_versions_and_devices():
    result = cliprd("doctor")
    assert result.returncode == 0
    for word in ("torch", "cores usable", "kfp", "GiB free"):
        assert word in result.stdout


def test_a_reader_that_goes_away_is_no_error():
    shell = f"{sys.executable} -m cliprd.cli params --schema | head -1"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "{\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        ["inputs", "--output"],
        ["retrain", "--dry-run", "--output"],
        ["pipeline", "compile", "distill", "--output"],
        ["pipeline", "run", "distill", "--local", "process", "--root"],
    ],
)
def test_what_cannot_lie_in_s3_makes_no_folder_of_that_name(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "s3://bucket/x"])
    assert stopped.value.code == 2
    assert "s3://bucket/x must be on this machine" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["prepare", "--out", "x"])
    assert stopped.value.code == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["promote", "--student", "", "--benchmark", "b", "--output", "o"],
        ["promote", "--student", "s", "--benchmark", "b", "--output="],
        ["cache", "--shards", " ", "--teacher", "t", "--output", "o"],
        ["cache", "--shards", "s", "--teacher", "t", "--output", "o", "--part", ""],
        ["benchmark", "--model", "m", "--reference", "", "--output", "o"],
        ["rollback", "--to", "\t"],
        ["retrain", "--output", ""],
        ["lineage", ""],
        ["plan", "--params", ""],
        ["plan", "--set", ""],
        ["pipeline", "submit", "distill", "--host", ""],
        ["pipeline", "trainjob", "--shards", "s", "--cache", "c", "--output", "", "--nodes", "2"],
    ],
)
def test_an_empty_option_is_one_line(words, tmp_path, monkeypatch, capsys):
    """An unset variable of a shell would else be the present folder, or the default."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n"), "empty" in error) == (2, 1, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["students", ".", "students/../students"])
def test_an_output_is_no_input(output, tmp_path, monkeypatch, capsys):
    """A stage clears its output folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / "students").mkdir()
    for words in (
        ["promote", "--student", "students", "--benchmark", "b"],
        ["compare", "--students", "students", "--benchmarks", "b"],
    ):
        assert cli.main([*words, "--output", output]) == 2
        assert "which is read" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "students"]


@pytest.mark.parametrize(("to", "code", "said"), [(">/dev/full", 5, "standard output: No space left"), (">&-", 0, "")])
def test_an_output_that_takes_nothing(to, code, said):
    shell = f"exec {sys.executable} -m cliprd params --schema {to}"
    run = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert run.returncode == code
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == bool(said)
