"""The workflows: run for real by act for every event, and what they may and may not do read from their text."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cliprd.retrain import ci
from tests.integration.pipeline import ROOT, environment, run
from tests.retrain import actions, room

CI = (sys.executable, "-m", "cliprd.retrain.ci")
WORKFLOWS = sorted(actions.WORKFLOWS.glob("*.yml"))


def load(path: Path) -> dict:
    text = yaml.safe_load(path.read_text())
    return {**text, "on": text.get("on", text.get(True))}  # YAML 1.1 reads the key as a truth value


def jobs():
    return [(file.name, name, job) for file in WORKFLOWS for name, job in load(file)["jobs"].items()]


def test_actionlint_finds_nothing():
    paths = [os.environ["PATH"], os.environ.get("GOBIN", ""), str(Path.home() / "go" / "bin")]
    program = shutil.which("actionlint", path=os.pathsep.join(paths))
    if program is None:
        reason = "no actionlint here: go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    found = subprocess.run([program, "-no-color", *map(str, WORKFLOWS)], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


def test_actions_are_few_and_pinned_by_commit():
    used = {step["uses"] for _, _, job in jobs() for step in job["steps"] if "uses" in step}
    assert used == actions.pinned()
    assert {name.partition("@")[0] for name in used} == {
        "actions/checkout",
        "actions/setup-python",
        "actions/upload-artifact",
    }


def test_rights_are_none_but_those_that_a_job_needs():
    for file in WORKFLOWS:
        assert load(file)["permissions"] == {}
    write = {
        (name, scope) for _, name, job in jobs() for scope, level in job["permissions"].items() if level == "write"
    }
    assert write == {("comment", "pull-requests"), ("record", "contents")}
    for _, name, job in jobs():
        assert job["timeout-minutes"], name
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout") and name != "record":
                assert step["with"]["persist-credentials"] is False, name


def test_no_text_of_others_is_put_into_a_command_and_no_foreign_code_meets_a_secret():
    for file in WORKFLOWS:
        text = file.read_text()
        assert "pull_request_target" not in text
        assert "workflow_run" not in text
        for _, _, job in jobs():
            for step in job["steps"]:
                assert "${{" not in step.get("run", "")
    for _, name, job in jobs():
        if "secrets." in json.dumps(job):
            assert name == "train"
            assert "head.repo.full_name == github.repository" in job["if"]


def test_one_retraining_at_a_time_and_none_is_cancelled():
    concurrency = load(actions.WORKFLOWS / "retrain.yml")["concurrency"]
    assert concurrency["cancel-in-progress"] is False
    assert concurrency["group"] == (
        "retrain-${{ github.event.pull_request.number || inputs.dry-run && 'dry' || github.ref }}"
    )


def test_only_the_default_branch_promotes_and_records():
    found = load(actions.WORKFLOWS / "retrain.yml")["jobs"]
    (retrain,) = (step for step in found["train"]["steps"] if step.get("id") == "retrain")
    main = "github.ref == format('refs/heads/{0}', github.event.repository.default_branch)"
    allowed = f"github.event_name == 'schedule' || {main}"
    assert retrain["env"]["RETRAIN_PROMOTE"] == f"${{{{ {allowed} }}}}"
    assert found["record"]["if"] == f"needs.train.outputs.lock != '' && ({allowed})"


def test_every_setting_of_the_script_is_one_that_it_explains():
    text = Path(ci.__file__).read_text()
    known = set(re.findall(r"RETRAIN_[A-Z]+", text.replace(ci.__doc__, "")))
    given = set(re.findall(r"^ +(RETRAIN_[A-Z]+):", (actions.WORKFLOWS / "retrain.yml").read_text(), re.MULTILINE))
    assert given <= known
    explained = set(re.findall(r"RETRAIN_[A-Z]+", ci.__doc__))
    assert explained == known


def test_without_a_place_for_a_champion_retraining_is_off_and_no_failure(tmp_path):
    repo = room.make(tmp_path, champion="")
    text = (repo / "params.yaml").read_text()
    (repo / "params.yaml").write_text(text.replace(str(tmp_path / "champion"), "''"))
    ended = run(repo, *CI, "train")
    assert "params.yaml names no place for a champion" in ended.stdout
    assert "Retraining: off" in (repo / "work" / "retrain" / "report.md").read_text()
    assert not room.ran(repo)


def test_the_lock_is_laid_upon_what_others_have_pushed_meanwhile_on_a_machine_that_knows_no_author(tmp_path):
    repo = room.make(tmp_path)
    run(tmp_path, "git", "clone", "-q", "origin", "other")
    room.commit(tmp_path / "other", "meanwhile")
    run(tmp_path / "other", "git", "push", "-q", "origin", "main")
    run(repo, "git", "config", "user.useConfigOnly", "true")
    (repo / "dvc.lock").write_text("schema: '2.0'\n")
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "RETRAIN_BRANCH": "main", "RETRAIN_REASON": "-n"}
    run(repo, *CI, "record", env=settings)
    told = run(tmp_path / "origin", "git", "log", "-2", "--format=%an %cn: %s", "main").stdout.splitlines()
    assert told == ["cliprd retrain cliprd retrain: Retrained: dvc.lock", "somebody somebody: meanwhile"]


def test_a_dry_run_that_failed_is_told_and_a_reason_is_no_option(tmp_path):
    repo = room.make(tmp_path)
    (repo / "params.yaml").write_text((repo / "params.yaml").read_text().replace("data/train", "data/nowhere"))
    settings = {"RETRAIN_DRY_RUN": "true", "RETRAIN_REASON": "--dry", "GITHUB_STEP_SUMMARY": "", "GITHUB_OUTPUT": ""}
    ended = run(repo, *CI, "train", check=False, env=settings)
    assert ended.returncode == 3, ended.stderr
    assert "nowhere" in ended.stderr
    assert "## Retraining: failed" in (repo / "work" / "retrain" / "report.md").read_text()


@pytest.fixture(scope="module")
def github():
    with actions.github() as server:
        yield server


@pytest.fixture(scope="module")
def trained(tmp_path_factory, github):
    """After a push to main: the first champion, and dvc.lock in the origin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", environment()["PATH"])
        repo = room.make(tmp_path_factory.mktemp("actions"))
        actions.repository(repo)
        result = happen(repo, github, "push", actions.MAIN)
        assert result.returncode == 0, result.stdout[-4000:]
        yield repo


def happen(repo, github, event, content, **options):
    room.prepare(repo)
    env = {"ROOM": str(repo.parent), "GITHUB_API_URL": github.url, **options.pop("env", {})}
    secrets = {"GITHUB_TOKEN": github.token, **options.pop("secrets", {})}
    return actions.act(repo, event, content, room=repo.parent / "act", env=env, secrets=secrets, **options)


def champion(repo):
    return json.loads((repo.parent / "champion" / "champion.json").read_text())["version"]


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_push_pull_request_merge_and_the_other_events(trained, github):
    """One story, as each event goes on from what the one before has left."""
    repo = trained
    first = champion(repo)
    assert room.ran(repo) == ["student baseline-0", "benchmark baseline-0"]
    log = run(repo.parent / "origin", "git", "log", "-1", "--format=%an: %s", "--name-only", "main").stdout.split("\n")
    assert (log[0], log[2]) == ("github-actions[bot]: Retrained: dvc.lock", "dvc.lock")
    run(repo, "git", "pull", "-q", "origin", "main")

    result = happen(repo, github, "schedule", actions.MAIN)
    assert result.returncode == 0, result.stdout[-4000:]
    assert f"nothing has changed since version {first}" in result.stdout
    assert "retrain/record" not in result.stdout
    assert room.ran(repo) == []

    run(repo, "git", "switch", "-qc", "change")
    room.tar(repo, 1)
    room.commit(repo, "a shard")
    request = actions.pull_request(7, base=run(repo, "git", "rev-parse", "main").stdout.strip())
    github.add(7, "<!-- cliprd retrain -->\nby a person, not to be replaced", "User")
    for turn in range(2):
        github.failures = [502] * turn
        result = happen(repo, github, "pull_request", request)
        assert result.returncode == 0, result.stdout[-4000:]
        assert room.ran(repo) == ([] if turn else ["student baseline-0", "benchmark baseline-0"])
    assert champion(repo) == first
    assert [comment["user"]["type"] for comment in github.comments[7]] == ["User", "Bot"]
    text = github.comments[7][1]["body"]
    assert text.startswith("<!-- cliprd retrain -->\n## Retraining: passed the gate; not promoted")
    assert "| data | `00001.tar` |" in text
    assert "●" in text
    assert f"https://github.com/{actions.REPOSITORY}/actions/runs/1" in text

    (repo / "dvc.lock").unlink()
    result = happen(repo, github, "workflow_dispatch", {**actions.MAIN, "ref": "refs/heads/change"})
    assert result.returncode == 0, result.stdout[-4000:]
    assert "Retraining: passed the gate; not promoted" in result.stdout
    assert "retrain/record" not in result.stdout
    assert champion(repo) == first
    run(repo, "git", "checkout", "-q", "dvc.lock")

    run(repo, "git", "switch", "-q", "main")
    run(repo, "git", "merge", "-q", "change")
    run(repo, "git", "push", "-q", "origin", "main")
    result = happen(repo, github, "push", actions.MAIN)
    assert result.returncode == 0, result.stdout[-4000:]
    assert room.ran(repo) == []
    second = champion(repo)
    assert second != first
    run(repo, "git", "pull", "-q", "origin", "main")
    assert "Retrained: dvc.lock" in run(repo, "git", "log", "-1", "--format=%s").stdout

    room.tar(repo, "shuffled")
    room.commit(repo, "a bad one")
    inputs = {"dry-run": "true", "reason": "only to $(touch look) `touch look`"}
    asked = {**actions.MAIN, "inputs": inputs}
    result = happen(repo, github, "workflow_dispatch", asked, inputs=inputs)
    assert result.returncode == 0, result.stdout[-4000:]
    assert "Retraining: would train" in result.stdout
    assert room.ran(repo) == []
    inputs = {"seeds": "0,7"}
    result = happen(repo, github, "workflow_dispatch", {**actions.MAIN, "inputs": inputs}, inputs=inputs)
    assert result.returncode == 1
    assert "ablation.seeds" in result.stdout

    message = {**actions.MAIN, "action": "data-changed", "client_payload": {"shards": ["shuffled.tar"]}}
    result = happen(repo, github, "repository_dispatch", message)
    assert result.returncode == 0, result.stdout[-4000:]
    assert "Retraining: refused by the gate" in result.stdout
    assert champion(repo) == second


@pytest.mark.integration
def test_a_failed_training_fails_the_run_and_says_so_in_the_comment(trained, github):
    room.tar(trained, 2)
    (trained.parent / "fail").write_text("4")
    before = room.outside(trained.parent)
    try:
        request = actions.pull_request(8, base="main")
        result = happen(trained, github, "pull_request", request)
    finally:
        (trained.parent / "fail").unlink()
    assert result.returncode == 1
    assert "Failure - Main Retrain" in result.stdout
    (comment,) = github.comments[8]
    assert "## Retraining: failed" in comment["body"]
    assert "it was told to fail" in comment["body"]
    assert room.outside(trained.parent) == before


@pytest.mark.integration
def test_a_fork_gets_no_training_and_is_told_why(trained, github):
    room.ran(trained)
    result = happen(trained, github, "pull_request", actions.pull_request(9, base="main", fork=True))
    assert result.returncode == 0
    assert "A pull request from a fork gets no secrets" in result.stdout
    assert room.ran(trained) == []
    assert 9 not in github.comments
