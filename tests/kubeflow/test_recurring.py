"""`cliprd pipeline schedule --list, --pause, --resume, --remove`: one schedule, and only that one, is changed."""

import pytest

from cliprd.kubeflow import client
from tests.ports import free_port


@pytest.fixture
def schedule(server, cliprd):
    """Make a schedule; gives the server's."""

    def make(name: str = "nightly", pipeline: str = "distill", *more: str) -> dict:
        given = ["--host", server.host, "--cron", "0 3 * * *", "--job-name", name, *more]
        assert cliprd("schedule", pipeline, *given)[0] == 0
        return server.jobs[-1]

    return make


@pytest.fixture
def verb(server, plain):
    """Run `cliprd pipeline schedule --VERB ...`, expecting success; gives stdout."""

    def run(*arguments: str) -> str:
        code, out, err = plain("schedule", *arguments, "--host", server.host)
        assert (code, err) == (0, ""), (out, err)
        return out

    return run


def test_schedules_are_listed_newest_first(schedule, verb, server):
    first, second = schedule("nightly"), schedule("weekly", "retrain")
    verb("--pause", "nightly")
    head, *rows = verb("--list").splitlines()
    assert head.split()[:4] == ["name", "id", "state", "starts"]
    assert [row.split()[:3] for row in rows] == [
        ["weekly", second["recurring_run_id"], "active"],
        ["nightly", first["recurring_run_id"], "paused"],
    ]
    assert "0 0 3 * * *  cliprd-retrain  2026-01-01 00:" in rows[0]
    assert "weekly" not in verb("distill", "--list")
    assert "nightly" in verb("distill", "--list")


def test_no_schedule_is_a_line(verb, server, schedule):
    assert verb("--list") == f"{server.host} has no schedule.\n"
    schedule()
    schedule("x", "retrain")
    verb("--remove", "x")
    assert verb("retrain", "--list") == f"{server.host} has no schedule of cliprd-retrain.\n"


def test_schedules_beyond_one_page_are_found(schedule, verb, server, monkeypatch):
    monkeypatch.setattr(client, "PAGE", 2)
    for number in range(5):
        schedule(f"s{number}")
    assert [row.split()[0] for row in verb("--list").splitlines()[1:]] == ["s4", "s3", "s2", "s1", "s0"]
    verb("--pause", "s0")
    assert [job["display_name"] for job in server.jobs if job["status"] == "DISABLED"] == ["s0"]


def test_a_schedule_of_somebody_elses_making_is_shown(verb, server):
    """By hand in the UI: an interval, the spec itself; and one that the server cannot read any more."""
    server.jobs += [
        {"recurring_run_id": "a", "display_name": "by\thand", "status": "ENABLED", "namespace": None,
         "trigger": {"periodic_schedule": {"interval_second": "3600"}}, "created_at": "2026-01-01T00:00:00Z",
         "pipeline_spec": {"pipelineInfo": {"name": "mine"}}},
        {"recurring_run_id": "b", "error": {"code": 13, "message": "not parsed"}},
    ]  # fmt: skip
    rows = verb("--list").splitlines()[1:]
    assert rows[0].split("  ")[0] == "by\\thand"
    assert "every 3600 s  mine" in rows[0]
    assert rows[1].split() == ["-", "b", "-", "not", "parsed", "-", "-"]


def test_a_schedule_is_paused_and_resumed_by_name_or_id(schedule, verb, server):
    job, other = schedule(), schedule("other", "distill", "--no-catchup")
    assert verb("--pause", "nightly") == (
        f"schedule nightly ({job['recurring_run_id']}) is paused; runs that it has started continue\n"
    )
    assert [one["status"] for one in server.jobs] == ["DISABLED", "ENABLED"]
    assert "is paused already" in verb("--pause", job["recurring_run_id"])
    assert "every run missed meanwhile starts" in verb("--resume", job["recurring_run_id"])
    assert [one["status"] for one in server.jobs] == ["ENABLED", "ENABLED"]
    assert "is not paused" in verb("--resume", "nightly")
    verb("--pause", "other")
    assert "the latest run missed meanwhile starts" in verb("--resume", other["recurring_run_id"])


def test_a_schedule_is_removed_and_its_runs_are_not(schedule, verb, server):
    schedule()
    kept = schedule("other")
    assert "is removed; runs that it has started continue" in verb("--remove", "nightly")
    assert server.jobs == [kept]
    # Kubernetes else deletes the workflows that belong to it, those that run included.
    assert server.requests[-1][2] == {"propagation_policy": "ORPHAN"}


def test_a_replaced_schedules_runs_stay_too(schedule, server):
    schedule()
    schedule()
    assert server.requests[-1][0] == "DELETE"
    assert server.requests[-1][2] == {"propagation_policy": "ORPHAN"}


@pytest.mark.parametrize("action", ["--pause", "--resume", "--remove"])
def test_a_name_that_is_not_there_is_one_line_with_those_that_are(schedule, fails_plain, server, action):
    where = ("--host", server.host)
    line = fails_plain(3, "schedule", action, "nightly", *where)
    assert line.endswith("has no schedule nightly. It has none.")
    schedule("b")
    schedule("a")
    assert fails_plain(3, "schedule", action, "nightly", *where).endswith("has no schedule nightly. It has a, b.")


@pytest.mark.parametrize("action", ["--pause", "--resume", "--remove"])
def test_of_several_with_one_name_none_is_changed(schedule, fails_plain, server, verb, action):
    schedule()
    server.jobs.append({**server.jobs[0], "recurring_run_id": "other"})
    before = [dict(job) for job in server.jobs]
    line = fails_plain(3, "schedule", action, "nightly", "--host", server.host)
    assert f"has 2 schedules named nightly: other, {before[0]['recurring_run_id']}. Give one's id." in line
    assert server.jobs == before
    verb(action, "other")
    changed = [job for job in before if job not in server.jobs]
    assert [job["recurring_run_id"] for job in changed] == ([] if action == "--resume" else ["other"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--list", "--cron", "0 3 * * *"], "--cron has no effect with --list"),
        (["--list", "--image", "x"], "--image has no effect with --list"),
        (["--pause", "x", "--set", "distill.epochs=3"], "--set has no effect with --pause"),
        (["--remove", "x", "--job-name", "y"], "--job-name has no effect with --remove"),
        (["--resume", "x", "--max-concurrency", "1"], "--max-concurrency has no effect with --resume"),
        (["--resume", "x", "--no-catchup"], "--no-catchup has no effect with --resume"),
        (["--list", "--input", "seed=1"], "--input has no effect with --list"),
        (["--list", "--experiment", "x"], "--experiment has no effect with --list"),
        (["distill", "--remove", "x"], "distill has no effect with --remove"),
        (["--cron", "0 3 * * *"], "A new schedule needs a pipeline"),
        (["distill"], "A new schedule needs --cron"),
        ([], "A new schedule needs a pipeline"),
    ],
)
def test_options_that_do_not_fit_are_refused(server, fails_plain, arguments, words):
    assert words in fails_plain(2, "schedule", *arguments, "--host", server.host)
    assert server.requests == []


@pytest.mark.parametrize("pair", [("--list", "--pause"), ("--pause", "--remove"), ("--resume", "--pause")])
def test_two_verbs_are_refused(server, plain, capsys, pair):
    given = [part for verb in pair for part in ([verb] if verb == "--list" else [verb, "x"])]
    with pytest.raises(SystemExit) as ended:
        plain("schedule", *given, "--host", server.host)
    assert ended.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize("action", [["--list"], ["--pause", "nightly"], ["--remove", "nightly"]])
def test_refused_rights_and_a_server_that_is_away(schedule, fails_plain, server, action):
    schedule()
    before = [dict(job) for job in server.jobs]
    server.trouble, server.trouble_at = "403", "/recurringruns"
    assert "forbids this (403" in fails_plain(3, "schedule", *action, "--host", server.host)
    server.trouble = "503"
    assert "cannot answer now" in fails_plain(75, "schedule", *action, "--host", server.host)
    assert server.jobs == before
    gone = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in fails_plain(75, "schedule", *action, "--host", gone)


def test_a_right_to_look_is_not_one_to_change(schedule, fails_plain, server):
    schedule()
    server.trouble, server.trouble_at = "403", ":disable"
    assert "forbids this (403" in fails_plain(3, "schedule", "--pause", "nightly", "--host", server.host)
    assert server.jobs[0]["status"] == "ENABLED"


def test_one_that_somebody_else_has_removed_meanwhile(schedule, verb, server):
    schedule()
    server.trouble, server.trouble_at = "404", "/recurringruns/"
    assert "is removed" in verb("--remove", "nightly")


def test_the_namespace_is_the_users(schedule, plain, server):
    server.multi_user = True
    schedule("mine", "distill", "--namespace", "team-a")
    code, out, _ = plain("schedule", "--list", "--host", server.host, "--namespace", "team-b")
    assert (code, out) == (0, f"{server.host} has no schedule.\n")
    assert "mine" in plain("schedule", "--list", "--host", server.host, "--namespace", "team-a")[1]
