"""A stage's face in a container."""

import json

import pytest

from cliprd import params
from cliprd.errors import InputError, ParamsError, RetryableError
from cliprd.kubeflow import checks, retry, step, values
from cliprd.params import check_runs
from cliprd.stages import prepare
from cliprd.storage import s3
from tests import s3_server
from tests.data.pictures import pairs, write_tar
from tests.integration.test_dvc_inputs import write_task


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A prefix in a bucket of a real S3 server."""
    (tmp_path / "buckets" / "work").mkdir(parents=True)
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    with s3_server.running(tmp_path / "buckets") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3.client.cache_clear()
        yield "s3://work/steps"
    s3.client.cache_clear()


def test_the_plan_knows_what_prepare_has_packed_into_the_store(tmp_path, store):
    write_tar(tmp_path / "raw/a.tar", [*pairs(3), ("x.png", b"no picture"), ("x.txt", b"x")])
    section = {"path": str(tmp_path / "raw"), "max_bad_fraction": 1}
    data = params.validate({"data": section}, where="test").data
    assert checks.planned_pairs(data, section, "source", store).number == 4
    step.run("prepare", {"data": section}, {}, str(tmp_path / "artifact"), store=store, content="source", keep=True)
    known = checks.planned_pairs(data, section, "source", store)
    assert known.number == 3
    assert known.where.startswith(f"packed in {store}/prepare/")
    assert checks.planned_pairs(data, section, "newer", store).number == 4
    assert checks.planned_pairs(data, section, "source", "").number == 4


def test_whole_numbers_come_back_from_doubles():
    """KFP's parameters are protobuf's Struct, which knows doubles only."""
    tree = {"a": 5.0, "b": [1.0, 0.5, True, "1.0", None], "c": {"d": 2000.0}}
    found = values.whole_numbers(tree)
    assert json.dumps(found) == '{"a": 5, "b": [1, 0.5, true, "1.0", null], "c": {"d": 2000}}'


def test_wrong_parameters_are_one_line_and_an_exit_code(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        step.run("prepare", {"data": {"pth": "x"}}, {}, str(tmp_path / "out"))
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("cliprd: error: prepare: unknown key 'data.pth'; did you mean 'data.path'?")
    assert line.count("\n") == 1


@pytest.mark.parametrize("number", [1e300, 2.0**63, 10**5000], ids=["1e300", "2**63", "5,000 digits"])
def test_a_number_that_is_too_large_is_one_line(number, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        step.run("prepare", {"data": {"samples_per_shard": number}}, {}, str(tmp_path / "out"))
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert "'data.samples_per_shard'" in line
    assert line.count("\n") == 1
    assert len(line) < 500


def test_a_grid_with_holes_is_refused_before_hours_of_training():
    clip_kd, baseline = {"method": "clip_kd", "seed": 0}, {"method": "baseline", "seed": 1}
    for runs, words in (
        ([clip_kd, baseline], "clip_kd with seed 1 is missing"),
        ([clip_kd, clip_kd], "is listed twice"),
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

    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    fails(InputError("bad", "fix"), 9)
    with pytest.raises(SystemExit) as end:
        step.run("prepare", {}, {}, str(tmp_path))
    assert (end.value.code, len(calls)) == (3, 1)
    fails(RetryableError("reset"), 2)
    assert step.run("prepare", {}, {}, str(tmp_path)) == "manifest"
    assert len(calls) == 3
    fails(RetryableError("reset"), 99)
    with pytest.raises(SystemExit) as end:
        step.run("prepare", {}, {}, str(tmp_path))
    assert (end.value.code, len(calls)) == (75, retry.ATTEMPTS)
    assert "Attempt 1 of 5" in capsys.readouterr().err


def test_the_plan_counts_the_pairs_and_sees_what_dvc_sees(tmp_path):
    import hashlib

    from cliprd.lineage import inputs

    write_tar(tmp_path / "raw/0.tar", pairs(3))
    write_task(tmp_path / "tasks/one")
    tower = {"layers": 1, "width": 16}
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "head_width": 8, **tower},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "heads": 1, **tower},
    }
    tree = params.validate(
        {
            "data": {"path": str(tmp_path / "raw")},
            "benchmark": {"tasks": str(tmp_path / "tasks")},
            "student": {"config": config},
            "compare": {"reference": "baseline"},
        },
        where="test",
    )
    sections = tree.model_dump(mode="json", include={"data", "teacher", "cache", "student", "distill", "benchmark"})
    sections["compare"] = {"reference": "baseline"}
    runs = [{"method": "baseline", "seed": 0}]
    before = checks.check_pipeline(sections, runs, str(tmp_path / "plan.md"))
    assert f"data     3 pairs, found in {tmp_path}/raw" in (tmp_path / "plan.md").read_text()
    assert before == tuple(hashlib.sha256(inputs.encode(part)).hexdigest() for part in inputs.look(tree).values())
    write_tar(tmp_path / "raw/1.tar", pairs(2, start=3))
    after = checks.check_pipeline(sections, runs, str(tmp_path / "plan.md"))
    assert "data     5 pairs" in (tmp_path / "plan.md").read_text()
    assert [one != two for one, two in zip(before, after, strict=True)] == [True, False, False]
