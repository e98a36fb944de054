"""`cliprd pipeline runs`: the state of each, why it failed, and an end to one of them."""

import datetime

import pytest

from cliprd.kubeflow import client
from tests.kubeflow.argo import Argo
from tests.kubeflow.kfp_server import EPOCH
from tests.ports import free_port

MESSAGE = "Error (exit code 3): data.path: s3://pairs/raw is empty."


def run(number: int, state: str = "SUCCEEDED", *, seconds: int = 60, pipeline: str = "p1", **more) -> dict:
    """One of the server's."""
    begun = datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=number)
    over = begun + datetime.timedelta(seconds=seconds)
    return {
        "run_id": f"id-{number}",
        "display_name": f"run {number}",
        "state": state,
        "storage_state": "AVAILABLE",
        "created_at": f"{begun:%Y-%m-%dT%H:%M:%SZ}",
        "finished_at": f"{over:%Y-%m-%dT%H:%M:%SZ}" if state in ("SUCCEEDED", "FAILED", "CANCELED") else EPOCH,
        "pipeline_version_reference": {"pipeline_id": pipeline, "pipeline_version_id": "v"},
        **more,
    }


@pytest.fixture
def there(server):
    """Two pipelines."""
    server.pipelines += [{"pipeline_id": "p1", "display_name": "cliprd-distill"},
                         {"pipeline_id": "p2", "display_name": "somebody-elses"}]  # fmt: skip
    return server


@pytest.fixture
def runs(there, plain):
    """Run `cliprd pipeline runs ...`, expecting success; gives the lines of stdout."""

    def call(*arguments: str) -> list[str]:
        code, out, err = plain("runs", *arguments, "--host", there.host)
        assert (code, err) == (0, ""), (out, err)
        return out.splitlines()

    return call


def failed(*pods, driver="Succeeded") -> dict:
    """A workflow of a step whose pods, or driver, failed."""
    argo = Argo()
    argo.root.task("prepare", *pods, driver=driver)
    return argo.manifest("Failed")


def test_the_newest_come_first_with_their_state(there, runs):
    there.runs += [run(2), run(1, "CANCELED"), run(3, seconds=75)]
    head, *rows = runs()
    assert head == "name   id    state      created (UTC)     seconds  failure"
    assert rows == [
        "run 3  id-3  succeeded  2026-01-01 03:00  75",
        "run 2  id-2  succeeded  2026-01-01 02:00  60",
        "run 1  id-1  canceled   2026-01-01 01:00  60",
    ]
    assert [row.split()[1] for row in runs("--limit", "2")[1:]] == ["3", "2"]


def test_a_run_that_goes_on_has_the_seconds_until_now(there, runs):
    begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=100)
    there.runs.append(run(1, "RUNNING", created_at=f"{begun:%Y-%m-%dT%H:%M:%SZ}"))
    assert 100 <= int(runs()[1].split()[-1]) < 200


@pytest.mark.parametrize("limit", [None, 3, 100])
def test_runs_beyond_one_page_are_shown_and_no_page_more_is_asked_for(there, runs, monkeypatch, limit):
    monkeypatch.setattr(client, "PAGE", 2)
    there.runs += [run(number) for number in range(24)]
    rows = runs(*(["--limit", str(limit)] if limit else []))[1:]
    count = min(24, limit or 20)
    assert [row.split()[1] for row in rows] == [str(number) for number in range(23, 23 - count, -1)]
    pages = [asked for _, path, asked in there.requests if path.endswith("/runs")]
    assert len(pages) == -(-count // 2)
    assert {asked["sort_by"] for asked in pages} == {"created_at desc"}


def test_the_reason_of_a_failure_is_the_failed_steps(there, runs):
    there.runs += [run(1, "FAILED"), run(2, "FAILED"), run(3, "FAILED"), run(4, "FAILED")]
    there.workflows_of = {
        "id-1": failed(("Failed", f"{MESSAGE}\nmore")),
        "id-2": failed(("Error", "pod deleted"), ("Failed", "OOMKilled (exit code 137)")),
        "id-3": failed(driver=("Failed", "driver: failed to get bucket")),
        "id-4": Argo("Pending").manifest("Failed", message="pods is forbidden: exceeded quota"),
    }  # fmt: skip
    reasons = [line.partition("  60       ")[2] for line in runs()[1:]]
    assert reasons == [
        "pods is forbidden: exceeded quota",
        "prepare: driver: failed to get bucket",
        "prepare: OOMKilled (exit code 137)",
        f"prepare: {MESSAGE} more",
    ]


def test_what_the_server_cannot_say_is_said(there, runs):
    there.old_api = False
    there.runs += [run(1, "FAILED"), {"run_id": "id-2", "error": {"code": 13, "message": "not parsed"}}]
    rows = runs()[1:]
    assert "its reason cannot be read: " in rows[0]
    assert rows[1].split() == ["-", "id-2", "-", "-", "-", "not", "parsed"]
    there.old_api = True
    there.workflows_of = {"id-1": failed("Failed")}
    assert runs()[1].endswith("prepare: it left no message")


def test_the_runs_of_one_pipeline(there, runs, fails_plain, monkeypatch):
    monkeypatch.setattr(client, "PAGE", 2)
    spec = {"pipeline_spec": {"pipelineInfo": {"name": "cliprd-distill"}, "root": {}}, "platform_spec": {}}
    without_cache = {**run(9), "pipeline_spec": spec}
    del without_cache["pipeline_version_reference"]
    there.runs += [run(1), run(2, pipeline="p2"), run(3, pipeline="p2"), run(4, pipeline="gone"), without_cache]
    assert [row.split()[1] for row in runs("distill")[1:]] == ["9", "1"]
    assert [row.split()[1] for row in runs("cliprd-distill", "--limit", "1")[1:]] == ["9"]
    assert [row.split()[1] for row in runs("somebody-elses")[1:]] == ["3", "2"]
    line = fails_plain(3, "runs", "retrain", "--host", there.host)
    assert line.endswith("has no pipeline cliprd-retrain. It has cliprd-distill, somebody-elses.")


def test_archived_runs_are_left_out_and_none_is_a_line(there, runs):
    there.runs.append(run(1, storage_state="ARCHIVED"))
    assert runs() == [f"{there.host} has no run."]
    assert runs("distill") == [f"{there.host} has no run of cliprd-distill."]


def test_names_cannot_move_the_cursor(there, runs):
    there.runs.append(run(1, display_name="a\x1b[2Jb\nc"))
    assert runs()[1].startswith("a\\u001b[2Jb\\nc  id-1")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "PAUSED"])
def test_a_run_is_cancelled(there, runs, state):
    there.runs += [run(1, state), run(2, "RUNNING")]
    there.workflows = [Argo().manifest("Running")]
    (line,) = runs("--cancel", "id-1")
    assert line == f"run run 1 (id-1) is being cancelled: {there.host}/#/runs/details/id-1"
    assert [one["state"] for one in there.runs] == ["CANCELING", "RUNNING"]
    (line,) = runs("--cancel", "id-1")
    assert line == "run run 1 (id-1) is being cancelled already"


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_a_run_that_has_ended_is_not_cancelled(there, fails_plain, state):
    there.runs.append(run(1, state))
    line = fails_plain(3, "runs", "--cancel", "id-1", "--host", there.host)
    assert line.endswith(f"Run run 1 (id-1) has ended: {state.lower()}.")
    assert not [path for _, path, _ in there.requests if path.endswith(":terminate")]


def test_an_id_that_is_not_there_is_one_line_with_those_that_could_be_meant(there, fails_plain):
    call = (3, "runs", "--cancel", "run 1", "--host", there.host)
    assert fails_plain(*call).endswith("has no run run 1. No run there is unfinished.")
    there.runs += [run(1, "RUNNING"), run(2), run(3, "PENDING")]
    assert fails_plain(*call).endswith("has no run run 1. Not ended are, newest first: run 3 (id-3), run 1 (id-1).")


@pytest.mark.parametrize("arguments", [["distill", "--cancel", "x"], ["--limit", "3", "--cancel", "x"]])
def test_options_that_exclude_each_other_are_refused(there, fails_plain, arguments):
    assert "has no effect with --cancel" in fails_plain(2, "runs", *arguments, "--host", there.host)
    assert there.requests == []


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "many", "10001"])
def test_a_limit_that_is_none(there, plain, limit):
    with pytest.raises(SystemExit) as ended:
        plain("runs", "--limit", limit, "--host", there.host)
    assert ended.value.code == 2


@pytest.mark.parametrize("action", [[], ["distill"], ["--cancel", "id-1"]])
def test_refused_rights_and_a_server_that_is_away(there, fails_plain, action):
    there.runs.append(run(1, "RUNNING"))
    there.trouble, there.trouble_at = "403", "/runs"
    assert "forbids this (403" in fails_plain(3, "runs", *action, "--host", there.host)
    there.trouble = "503"
    assert "cannot answer now" in fails_plain(75, "runs", *action, "--host", there.host)
    assert there.runs[0]["state"] == "RUNNING"
    gone = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in fails_plain(75, "runs", *action, "--host", gone)


def test_a_right_to_look_is_not_one_to_cancel(there, fails_plain):
    there.runs.append(run(1, "RUNNING"))
    there.trouble, there.trouble_at = "403", ":terminate"
    assert "forbids this (403" in fails_plain(3, "runs", "--cancel", "id-1", "--host", there.host)
    assert there.runs[0]["state"] == "RUNNING"
