"""A signal ends a command with one line and 128 + its number, wherever the main thread is."""

import signal
import subprocess
import sys

import pytest

from cliprd import signals
from cliprd.artifact import manifest
from cliprd.artifact.workspace import Workspace

COMMAND = """
import ctypes, sys, time
from pathlib import Path
from cliprd import cli, signals
from cliprd.artifact.workspace import Workspace
signals.PATIENCE = {patience}
def call(options):
    with Workspace(Path(sys.argv[1]), stage="s", params={{}}, inputs={{}}) as work:
        (work.path / "part").write_text("1")
        print("in", flush=True)
{body}
        work.finish()
    return 0
cli.inspect._params = call
sys.exit(cli.main(["params"]))
"""
SLEEP = "time.sleep(60)"
LOST = """
class Slow:
    def __del__(self):
        time.sleep(5)  # an exception in a destructor is printed and lost
Slow()
time.sleep(60)
"""
SWALLOWED = """
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""


def ended(tmp_path, body, number, *, patience=30.0, again=0, ignore=False):
    indented = "".join(f"        {line}\n" for line in body.strip("\n").splitlines())
    code = COMMAND.format(patience=patience, body=indented)

    def prepare():
        if ignore:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare,
    )  # fmt: skip
    assert process.stdout.readline() == "in\n"
    for _ in range(1 + again):
        process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, ""
    return process.returncode, errors


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_with_one_line_and_the_shells_exit_code(tmp_path, number, code, word):
    returned, errors = ended(tmp_path, SLEEP, number)
    assert returned == code
    (line,) = errors.splitlines()
    assert word in line
    assert "run the same command to resume" in line
    assert not (tmp_path / "out" / ".lock").exists()
    with Workspace(tmp_path / "out", stage="s", params={}, inputs={}) as work:  # what was done stays
        assert work.resumed
        assert (work.path / "part").read_text() == "1"


def test_a_second_signal_does_not_interrupt_the_clean_up(tmp_path):
    returned, errors = ended(tmp_path, SLEEP, signal.SIGTERM, again=5)
    assert (returned, len(errors.splitlines())) == (143, 1)


@pytest.mark.parametrize("body", [LOST, SWALLOWED])
def test_a_blocked_main_thread_is_ended_after_the_patience(tmp_path, body):
    returned, errors = ended(tmp_path, body, signal.SIGTERM, patience=1.0)
    assert returned == 143
    assert errors.splitlines()[-1].startswith("cliprd: error: ended by SIGTERM")


def test_nohup_is_respected(tmp_path):
    returned, _ = ended(tmp_path, "time.sleep(2)", signal.SIGHUP, ignore=True)
    assert returned == 0
    assert manifest.verify(tmp_path / "out", stage="s")


def test_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in signals.NUMBERS}
    with pytest.raises(signals.Ended) as caught, signals.raised():
        signal.raise_signal(signal.SIGTERM)
    assert signals.exit_code(caught.value) == 143
    assert {number: signal.getsignal(number) for number in signals.NUMBERS} == before
    with signals.raised(), signals.raised():  # a stage within a step
        pass
    assert {number: signal.getsignal(number) for number in signals.NUMBERS} == before


def test_a_signal_ends_a_pipeline_step_too(tmp_path):
    code = "\n".join([
        "import time", "from cliprd.kubeflow import retry",
        "with retry.reporting():", "    print('in', flush=True)", "    time.sleep(60)",
    ])  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors.splitlines() == ["cliprd: error: ended by SIGTERM; run the same command to resume"]


START = """
import sys, time
class Slow:  # the first import of the command line takes its time
    def find_spec(self, name, path=None, target=None):
        if name == "cliprd.cli":
            print("in", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from cliprd.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_during_import_ends_the_command(number):
    process = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert len(errors.splitlines()) == 1


def test_a_signal_reaches_a_main_thread_in_c_code(tmp_path):
    program = "with signals.raised():\n    sys.exit(cli.main(['params']))\n"
    code = COMMAND.replace('sys.exit(cli.main(["params"]))\n', program)
    body = "".join(f"        {line}\n" for line in SWALLOWED.strip("\n").splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", code.format(patience=1.0, body=body), str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "ended by SIGTERM" in errors
