"""A history that is followed: complete rows, each once; damaged ones are left out, with a word, and nothing else."""

import json

import pytest

from cliprd.distill.history import History
from cliprd.tracking import runs
from cliprd.tracking.records import SYSTEM, Records
from tests.tracking.trainings import record


@pytest.fixture
def history(tmp_path):
    opened = History(tmp_path, ["task", "fd"], ["student_scale", "cross_scale"], keep_to=0)
    yield opened
    opened.close()


def test_each_call_gives_the_rows_since_the_last(tmp_path, history):
    records = Records(tmp_path, after=2)
    history.append(record(2, time=7))
    assert records.read() == []
    assert records.latest == 7
    history.append(record(4, 0.25, time=9))
    (tmp_path / SYSTEM).write_text("step,name,value\n4,system/cpu,12.5\n")
    with (tmp_path / "history.csv").open("a") as file:
        file.write("6,0,0.1")  # while it is written
    (entry,) = records.read()
    assert (entry.step, entry.time) == (4, 9)
    assert entry.metrics == {
        "loss/task": 0.25, "loss/fd": 0.5, "loss/total": 0.75, "scale/student": 14.3, "scale/cross": 2.66,
        "grad_norm": 0.1, "lr": 1e-3, "epoch": 0.0, "images_per_second": 400.0, "data_wait": 0.01, "system/cpu": 12.5,
    }  # fmt: skip
    assert records.read() == []


@pytest.mark.parametrize("bad", [b"\0\0\0", b"4", b"x,0,1,1,1,1,1,1,1", b"\xff\xfe", b"4,0,1,1,1,1,1,1,1,1,1"])
def test_damaged_lines_are_left_out(tmp_path, history, bad, capsys):
    history.append(record(2))
    with (tmp_path / "history.csv").open("ab") as file:
        file.write(bad + b"\n")
    history.append(record(6))
    assert [entry.step for entry in Records(tmp_path).read()] == [2, 6]
    assert f"{tmp_path}/history.csv is damaged: 1 of its lines" in capsys.readouterr().err


def test_a_history_of_an_older_cliprd_has_no_times(tmp_path, history):
    history.append(record(2))
    (tmp_path / "volatile/throughput.csv").write_text("step,images_per_second,data_wait\n2,400,0.01\n")
    (entry,) = Records(tmp_path).read()
    assert entry.time > 1_000_000_000_000
    assert entry.metrics["images_per_second"] == 400


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "{}", '{"training": []}', '{"training": {"datasets": 3}}', None]
)
def test_a_damaged_note_is_named(tmp_path, content, capsys):
    path = tmp_path / runs.RUN_FILE
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_text(content)
    assert runs.Note.read(tmp_path) is None
    if content is not None:
        assert str(path) in capsys.readouterr().err
    assert runs.Note.read(tmp_path / "none") is None
    assert capsys.readouterr().err == ""


def test_a_note_is_read_as_it_was_written(tmp_path):
    note = runs.Note(None, "e", runs.Training(name="a", key="k", datasets=({"name": "caf\udce9"},)))
    note.write(tmp_path)
    assert runs.Note.read(tmp_path) == note
    assert json.loads((tmp_path / runs.RUN_FILE).read_text())["run_id"] is None
