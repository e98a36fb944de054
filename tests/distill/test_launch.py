"""Several processes through torchrun's launcher, by the stage and by hand, and every way in which they can end."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cliprd import params
from cliprd.artifact import manifest
from cliprd.distill.launch import SIGNALS, _cause, launch
from cliprd.errors import DivergedError, InputError, ParamsError, RetryableError
from cliprd.stages import distill
from tests.distill.rooms import make_params
from tests.distill.test_distributed import assert_near, history

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "cliprd.cli"]
RANK = "tests.distill.rank"
LONGEST = 300  # seconds, of a start or an end on a busy machine: what is asserted is that it comes, and how


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(rooms, output, *overrides, **options):
    file = output.with_suffix(".yaml")
    file.write_text(params.dump(make_params(rooms, **options)))
    folders = ["--shards", str(rooms / "shards"), "--cache", str(rooms / "cache"), "--output", str(output)]
    return ["distill", "--params", str(file), *folders, *overrides]


def wait_for(what, process):
    until = time.monotonic() + LONGEST
    while not (found := what()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def one(rooms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "student"
    distill.run(make_params(rooms), {"shards": rooms / "shards", "cache": rooms / "cache"}, folder)
    return folder


@pytest.fixture(scope="module")
def two(rooms, tmp_path_factory):
    """`cliprd distill` that launches two processes: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("two") / "student"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    arguments = command(rooms, folder, "--set", "distill.processes=2")
    done = subprocess.run([*CLI, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.integration
def test_two_processes_give_the_student_of_one(one, two):
    folder, done = two
    assert done.stderr == ""
    assert done.stdout.startswith(f"distill: {folder} is whole")
    assert len(done.stdout.splitlines()) == 1
    assert_near(history(folder), history(one))
    found, expected = manifest.verify(folder, stage="distill"), manifest.read(one)
    assert found.files.keys() == expected.files.keys()
    assert (found.params, found.inputs) == (expected.params, expected.inputs)
    assert {p.name for p in folder.rglob("*")} == {p.name for p in one.rglob("*")}


@pytest.mark.integration
def test_a_training_finished_on_two_processes_is_finished_on_one(rooms, two):
    folder, _ = two
    before = (folder / "manifest.json").stat().st_mtime_ns
    for processes in (1, 2, 30):  # 30 would be refused, were there anything to do
        tree = make_params(rooms, processes=processes)
        distill.run(tree, {"shards": rooms / "shards", "cache": rooms / "cache"}, folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.integration
def test_torchrun_by_hand(rooms, two, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "cliprd.cli", *command(rooms, tmp_path / "student")]
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("is whole") == 1
    assert manifest.verify(tmp_path / "student").files == manifest.read(two[0]).files  # bit for bit


def strike(arguments, output, number, rank):
    """Send `number` to rank `rank` of a training in the middle of its steps; the end of it."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(output.glob(".checkpoint/step-*.json")), process)
    ranks = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        ranks |= {entry: int(pid) for entry in environment if entry.startswith("RANK=")}
    assert set(ranks) == {"RANK=0", "RANK=1"}
    os.kill(ranks[f"RANK={rank}"], number)
    _, stderr = process.communicate(timeout=LONGEST)
    assert not any(map(is_alive, ranks.values()))
    assert not (output / "manifest.json").exists()
    return process.returncode, stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=lambda n: str(int(n))
)
def test_a_signal_to_the_command_ends_all_ranks_with_one_line(rooms, tmp_path, number, code):
    output = tmp_path / "student"
    arguments = [*CLI, *command(rooms, output, "--set", "distill.processes=2", epochs=500)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(output.glob(".checkpoint/step-*.json")), process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=LONGEST)
    assert process.returncode == code
    (line,) = stderr.splitlines()
    assert line.startswith("cliprd: error: ")
    assert "run the same command to resume" in line
    assert not any(map(is_alive, ranks))
    assert list(output.glob(".checkpoint/step-*.json"))
    assert not (output / "manifest.json").exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "rank", "line"),
    [
        (signal.SIGKILL, 1, "Rank 1 was ended by SIGKILL (out of memory?)."),
        (signal.SIGSTOP, 0, "Rank 1 of 2 lost contact with rank 0: no heartbeat for 20 seconds."),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_rank_that_dies_or_hangs_ends_it_with_one_line_and_another_number_goes_on(
    rooms, tmp_path, number, rank, line
):
    output = tmp_path / "student"
    code, stderr = strike([*CLI, *command(rooms, output, processes=2, epochs=3000)], output, number, rank)
    assert code == 75
    assert stderr == f"cliprd: error: {line} Run the same command to resume from the last checkpoint.\n"
    saved = max(int(path.stem.partition("-")[2]) for path in output.glob(".checkpoint/step-*.json"))
    process = subprocess.Popen(
        [*CLI, *command(rooms, output, processes=1, epochs=3000)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline().endswith(f"goes on from step {saved} of 15000\n")
    process.kill()
    process.communicate()


@pytest.mark.integration
def test_a_rank_that_dies_ends_a_torchrun_by_hand(rooms, tmp_path):
    output = tmp_path / "student"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    again = [*torchrun, "-m", "cliprd.cli", *command(rooms, output, epochs=3000)]
    code, stderr = strike(again, output, signal.SIGKILL, 1)
    assert code != 0
    # torchrun sees that itself, and may end rank 0 before it has said a word
    assert "Signal 9 (SIGKILL) received by PID" in stderr
    saved = max(int(path.stem.partition("-")[2]) for path in output.glob(".checkpoint/step-*.json"))
    process = subprocess.Popen(again, stderr=subprocess.PIPE, text=True)
    try:
        assert any(line.endswith(f"goes on from step {saved} of 15000\n") for line in process.stderr)
    finally:
        process.terminate()  # torchrun ends its ranks
        process.communicate(timeout=LONGEST)


@pytest.mark.integration
def test_the_causes_class_and_exit_code_are_raised_by_the_launcher(tmp_path):
    """Rank 1 refuses its input; rank 0, waiting for it, has lost it or is ended: not what is told."""
    task = {"what": "refuse", "rank": 1, "folder": str(tmp_path)}
    handlers = [signal.getsignal(number) for number in SIGNALS]
    logger = logging.getLogger("torch.distributed.elastic.multiprocessing.api")
    with pytest.raises(InputError, match=r"^Sample 'x' cannot be decoded\. Run `cliprd prepare` again\.$"):
        launch(RANK, task, 2)
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert not logger.disabled
    with pytest.raises(RuntimeError, match=r"^rank 0: KeyError: 'x'") as caught:
        launch(RANK, {**task, "what": "stumble", "rank": 0}, 2)
    assert "tests/distill/rank.py" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match=r"^rank 1 ended with exit code 7$"):
        launch(RANK, {**task, "what": "leave"}, 2)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_to_the_parent_ends_the_children(tmp_path, number):
    task = {"what": "sleep", "rank": 1, "folder": str(tmp_path)}
    code = f"from cliprd.distill.launch import launch; launch({RANK!r}, {task}, 2)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len([file for file in tmp_path.iterdir() if file.stat().st_size]) == 2, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=LONGEST)
    assert (process.returncode, stderr) == (-number, "")
    until = time.monotonic() + 5
    pids = [int(file.read_text()) for file in tmp_path.iterdir()]
    while any(map(is_alive, pids)):
        assert time.monotonic() < until
        time.sleep(0.05)


def told(rank, kind, when, remedy="Do this.", trace=""):
    return {"rank": rank, "kind": kind, "problem": f"It {kind}.", "remedy": remedy, "time": when, "trace": trace}


@pytest.mark.parametrize(
    ("found", "codes", "kind", "text"),
    [
        ([told(0, "LostContactError", 1), told(1, "InputError", 2)], {0: 75}, InputError, "It InputError. Do this."),
        ([told(1, "DivergedError", 1), told(0, "DivergedError", 2)], {0: 4, 1: 4}, DivergedError, "It DivergedError."),
        ([told(0, "LostContactError", 1)], {0: 75, 1: -9}, RetryableError, "Rank 1 was ended by SIGKILL (out of m"),
        ([told(0, "RetryableError", 1)], {0: 75, 1: -9}, RetryableError, "It RetryableError."),  # a rank that hung
        ([], {1: -11}, RetryableError, "Rank 1 was ended by SIGSEGV. "),
        ([told(0, "LostContactError", 1)], {0: 75}, RetryableError, "It LostContactError."),
        ([told(0, "ValueError", 1)], {0: 1, 1: -15}, RuntimeError, "rank 0: ValueError: It ValueError."),
        ([told(0, "LostContactError", 1)], {0: 75, 1: 7}, RuntimeError, "rank 1 ended with exit code 7"),
        ([], {0: -15, 1: 7}, RuntimeError, "rank 1 ended with exit code 7"),
    ],
)
def test_which_failure_is_the_cause(found, codes, kind, text):
    cause = _cause(found, codes)
    assert type(cause) is kind
    assert str(cause).startswith(text)


def test_invalid_launches_are_refused_beforehand(rooms, tmp_path):
    inputs = {"shards": rooms / "shards", "cache": rooms / "cache"}
    with pytest.raises(ParamsError, match="batches of 2, fewer than the 3 processes"):
        distill.run(make_params(rooms, processes=3, batch_size=2), inputs, tmp_path)
    with pytest.raises(ValueError, match="report"):
        distill.run(make_params(rooms, processes=2), inputs, tmp_path, report=print)


@pytest.mark.parametrize("error", [InputError("Bad.", "Mend it."), KeyError("x")])
def test_a_failure_is_written_as_torchrun_reads_it(monkeypatch, tmp_path, error):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from cliprd.distill.error_file import record_exception

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(type(error)), record_exception():
        raise error
    assert ProcessFailure(0, 1, 3, str(tmp_path / "error.json")).message["message"] == str(error)
    assert json.loads((tmp_path / "error.json").read_text())["cliprd"]["kind"] == type(error).__name__
