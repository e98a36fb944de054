"""A stage's face in a container."""

import json

import pytest

from cliprd import component
from cliprd.errors import InputError, ParamsError, RetryableError
from cliprd.params import check_runs
from cliprd.stages import prepare


def testwhole_numbers_come_back_from_doubles():
    """KFP's parameters are protobuf's Struct, which knows doubles only."""
    tree = {"a": 5.0, "b": [1.0, 0.5, True, "1.0", None], "c": {"d": 2000.0}}
    found = component.whole_numbers(tree)
    assert json.dumps(found) == '{"a": 5, "b": [1, 0.5, true, "1.0", null], "c": {"d": 2000}}'


def test_wrong_parameters_are_one_line_and_an_exit_code(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        component.run("prepare", {"data": {"pth": "x"}}, {}, str(tmp_path / "out"))
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("cliprd: error: prepare: unknown key 'data.pth'; did you mean 'data.path'?")
    assert line.count("\n") == 1


def test_a_grid_with_holes_is_refused_before_hours_of_training():
    clip_kd, baseline = {"method": "clip_kd", "seed": 0}, {"method": "baseline", "seed": 1}
    for runs, words in (
        ([clip_kd, baseline], "clip_kd with seed 1 is not there"),
        ([clip_kd, clip_kd], "stands there twice"),
        ([{**clip_kd, "lr": 0.5}], "is no run"),
        ([{"method": "clip_kd"}], "is no run"),
        ([], "runs is empty"),
    ):
        with pytest.raises(ParamsError, match=words):
            check_runs(runs)
    assert check_runs([clip_kd, {**baseline, "seed": 0}]) == (("clip_kd", "baseline"), (0,))


def test_wrong_input_is_tried_once_and_a_network_failure_again(tmp_path, monkeypatch, capsys):
    calls = []

    def fails(error, times):
        def run(*_):
            calls.append(1)
            if len(calls) <= times:
                raise error
            return "manifest"

        calls.clear()
        monkeypatch.setattr(prepare, "run", run)

    monkeypatch.setattr(component, "FIRST_PAUSE", 0.001)
    fails(InputError("bad", "fix"), 9)
    with pytest.raises(SystemExit) as end:
        component.run("prepare", {}, {}, str(tmp_path))
    assert (end.value.code, len(calls)) == (3, 1)
    fails(RetryableError("reset"), 2)
    assert component.run("prepare", {}, {}, str(tmp_path)) == "manifest"
    assert len(calls) == 3
    fails(RetryableError("reset"), 99)
    with pytest.raises(SystemExit) as end:
        component.run("prepare", {}, {}, str(tmp_path))
    assert (end.value.code, len(calls)) == (75, component.ATTEMPTS)
    assert "Attempt 1 of 5" in capsys.readouterr().err
