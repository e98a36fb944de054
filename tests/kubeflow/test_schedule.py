"""`cliprd pipeline schedule`: one job of a name, at the times that were meant."""

import pytest

from cliprd.errors import ParamsError
from cliprd.kubeflow.schedule import cron


def test_a_job_is_made_and_replaced_not_doubled(server, cliprd):
    code, out, err = cliprd(
        "schedule", "distill", "--host", server.host, "--cron", "0 3 * * *", "--input", "seed=1", "--no-catchup"
    )
    assert (code, err) == (0, "")
    (job,) = server.jobs
    assert job["display_name"] == "cliprd-distill"
    assert job["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert (job["no_catchup"], job["max_concurrency"], job["mode"]) == (True, "1", "ENABLE")
    assert job["runtime_config"]["parameters"] == {"seed": 1}
    assert job["pipeline_version_reference"]["pipeline_version_id"] == server.versions[0]["pipeline_version_id"]
    assert f"{server.host}/#/recurringrun/details/{job['recurring_run_id']}" in out

    _, out, _ = cliprd(
        "schedule", "distill", "--host", server.host, "--cron", "0 4 * * MON-FRI", "--max-concurrency", "2"
    )
    (other,) = server.jobs
    assert other["recurring_run_id"] != job["recurring_run_id"]
    assert (other["no_catchup"], other["max_concurrency"]) == (False, "2")
    assert "replaced" in out

    cliprd("schedule", "distill", "--host", server.host, "--cron", "0 4 * * *", "--job-name", "second")
    assert [job["display_name"] for job in server.jobs] == ["cliprd-distill", "second"]


def test_the_old_job_stays_if_the_new_one_cannot_be_made(server, cliprd, fails):
    cliprd("schedule", "distill", "--host", server.host, "--cron", "0 3 * * *")
    server.on_run = None
    server.trouble, server.trouble_at = "403", "/recurringruns"
    fails(3, "schedule", "distill", "--host", server.host, "--cron", "0 4 * * *")
    assert [job["trigger"]["cron_schedule"]["cron"] for job in server.jobs] == ["0 0 3 * * *"]


def test_a_refused_schedule_leaves_no_version_behind(server, fails):
    server.troubles_at = [("400", "POST", "/recurringruns")]
    fails(3, "schedule", "distill", "--host", server.host, "--cron", "0 4 * * *")
    assert server.pipelines == server.versions == server.jobs == []
    server.troubles_at = [("503", "POST", "/recurringruns")]
    line = fails(75, "schedule", "distill", "--host", server.host, "--cron", "0 4 * * *")
    assert f"stays version {server.versions[0]['name']} of pipeline cliprd-distill (for the next attempt)" in line


def test_an_old_job_that_cannot_be_removed_is_said(server, cliprd, fails):
    cliprd("schedule", "distill", "--host", server.host, "--cron", "0 3 * * *")
    server.trouble, server.trouble_at = "403", "/recurringruns/"
    line = fails(3, "schedule", "distill", "--host", server.host, "--cron", "0 4 * * *")
    assert "could not be removed" in line
    assert "or both run" in line


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("0 3 * * *", "0 0 3 * * *"),  # KFP itself would read it as: three minutes past every hour
        ("*/15  *  * * mon-fri", "0 */15 * * * mon-fri"),
        ("30 0 3 1,15 JAN-JUN ?", "30 0 3 1,15 JAN-JUN ?"),
        ("@daily", "@daily"),
        ("@every 6h", "@every 6h"),
    ],
)
def test_cron_is_what_it_is_everywhere_else(given, sent):
    assert cron(given) == sent


@pytest.mark.parametrize(
    "given", ["", "0 3 * *", "0 3 * * * * *", "60 3 * * *", "0 24 * * *", "0 3 0 * *", "0 3 * 13 *", "0 3 * * 7",
              "0 3 * * MAN", "a 3 * * *", "5-3 3 * * *", "*/0 3 * * *", "@noon", "@every soon", "0 3,,4 * * *"],
)  # fmt: skip
def test_what_is_no_cron_is_refused(given):
    with pytest.raises(ParamsError, match="--cron"):
        cron(given)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cron", "0 25 * * *"],
        ["--cron", "0 3 * * *", "--max-concurrency", "0"],
        ["--cron", "0 3 * * *", "--max-concurrency", "11"],
        ["--cron", "0 3 * * *", "--input", "methd=vrd"],
    ],
)
def test_nothing_is_sent_before_all_is_right(server, fails, arguments):
    fails(2, "schedule", "distill", "--host", server.host, *arguments)
    assert server.requests == []


def test_an_expired_token_is_one_line(server, fails, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "s3cr3t")
    server.token = "new"
    assert "KFP_TOKEN" in fails(3, "schedule", "distill", "--host", server.host, "--cron", "0 3 * * *")
