"""`cliprd retrain` with real DVC, gate and champion: what it decides, and what it leaves where it fails or is killed.

The training alone is a stand-in (`room`); the story with a real one is tests/integration/test_retrain_story.py.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cliprd import cli
from cliprd.errors import InputError, ParamsError
from cliprd.params import load, validate
from cliprd.promotion.champion import current
from cliprd.retrain.dvc import Repository, revision
from cliprd.retrain.proposal import plan
from cliprd.storage import s3
from tests import s3_server
from tests.integration.pipeline import environment, run
from tests.retrain import room

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _programs():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment(), "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A repository whose first champion was promoted."""
    repo = room.make(tmp_path_factory.mktemp("first"))
    _, dry = room.retrain(repo, "--dry-run")
    assert not room.outside(repo.parent)
    assert "There was no champion in" in dry
    assert "`distill@baseline-0`, `benchmark@baseline-0`" in dry
    code, said = room.retrain(repo)
    assert code == 0, said
    assert room.ran(repo) == ["student baseline-0", "benchmark baseline-0"]
    room.commit(repo, "trained")
    return repo


@pytest.fixture
def repo(first, tmp_path):
    """A copy of it; places are absolute, so they are written anew."""
    shutil.copytree(first.parent, tmp_path / "copy", symlinks=True)
    repo = tmp_path / "copy" / "repo"
    for file in ("params.yaml", ".dvc/config"):
        (repo / file).write_text((repo / file).read_text().replace(str(first.parent), str(repo.parent)))
    run(repo, "git", "remote", "set-url", "origin", str(repo.parent / "origin"))
    room.commit(repo, "moved")
    return repo


def champion(repo):
    return json.loads((repo.parent / "champion" / "champion.json").read_text())["version"]


def wait_for(what, process=None):
    for _ in range(6000):
        if what():
            return
        assert process is None or process.poll() is None
        time.sleep(0.05)
    pytest.fail("waited in vain")


def at_work(repo):
    """Processes in the repository, other than this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == repo and int(process.name) != os.getpid():
                found.append(process.name)
    return found


def test_the_first_is_promoted_and_the_same_again_does_nothing(first):
    told = room.report(first)
    assert (told["ending"], told["champion"], told["version"]) == ("promoted", None, champion(first))
    assert told["git"]["revision"]
    before = room.outside(first.parent)
    assert f"remote/cliprd/locks/{told['inputs']}.yaml" in before
    code, said = room.retrain(first)
    assert code == 0
    assert f"nothing has changed since version {champion(first)}" in said
    assert room.report(first)["ending"] == "nothing"
    assert room.ran(first) == []
    assert room.outside(first.parent) == before


def test_a_new_shard_is_trained_and_promoted_and_said_beforehand(repo):
    room.tar(repo, 1)
    before, old = room.outside(repo.parent), champion(repo)
    _, dry = room.retrain(repo, "--dry-run")
    assert "| data | `00001.tar` | – |" in dry
    assert "`distill@baseline-0`, `benchmark@baseline-0`" in dry
    assert room.outside(repo.parent) == before
    assert room.ran(repo) == []
    assert room.retrain(repo, "--reason", "a new shard")[0] == 0
    told = room.report(repo)
    assert (told["ending"], told["champion"], told["version"]) == ("promoted", old, champion(repo))
    assert told["decision"]["mean"]["low"] > 0
    assert told["asked_by"]["what"] == "a new shard"
    text = (repo / "work" / "retrain" / "report.md").read_text()
    assert f"Version `{told['version']}` is the champion" in text
    assert "●" in text


def test_what_was_rolled_back_is_not_promoted_again_and_a_revert_agrees(repo):
    old = champion(repo)
    room.tar(repo, 1)
    code, said = room.retrain(repo)
    assert code == 0, said
    with contextlib.chdir(repo):
        assert cli.main(["rollback", "--reason", "worse in production"]) == 0
    assert champion(repo) == old
    code, said = room.retrain(repo)
    assert code == 0, said
    assert (room.report(repo)["ending"], champion(repo)) == ("refused", old)
    assert "a rollback took this student out of use" in room.report(repo)["why"]
    (repo / "data" / "train" / "00001.tar").unlink()
    code, said = room.retrain(repo)
    assert code == 0, said
    assert room.report(repo)["ending"] == "nothing"


@pytest.mark.parametrize("down", ["gate", "promotion"])
def test_with_the_champions_store_down_at_the_end_nothing_is_changed(tmp_path, monkeypatch, down):
    """The store goes away at a moment that is set by the work itself, and comes back for the next attempt."""
    (tmp_path / "buckets" / "champions").mkdir(parents=True)
    monkeypatch.setattr(s3, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    with contextlib.ExitStack() as stack:
        server = contextlib.ExitStack()
        stack.callback(server.close)

        def start():
            for name, value in server.enter_context(s3_server.running(tmp_path / "buckets")).items():
                monkeypatch.setenv(name, value)
            s3.client.cache_clear()

        step = {"gate": "train", "promotion": "push"}[down]
        work = getattr(Repository, step)

        def then_down(*arguments):
            done = work(*arguments)
            server.close()
            return done

        start()
        repo = room.make(tmp_path / "room", champion="s3://champions/mine")
        monkeypatch.setattr(Repository, step, then_down)
        code, said = room.retrain(repo)
        assert code == 75, said
        assert room.report(repo)["ending"] == "failed"
        monkeypatch.setattr(Repository, step, work)
        start()
        params = load(repo / "params.yaml")
        assert current("s3://champions/mine", params) is None
        assert bool(room.outside(repo.parent)) is (down == "promotion")  # DVC's remote
        room.ran(repo)
        code, said = room.retrain(repo)
        assert code == 0, said
        assert room.ran(repo) == []
        assert current("s3://champions/mine", params).version == room.report(repo)["version"]


def test_a_bad_one_is_refused_once_and_that_is_no_failure(repo):
    room.tar(repo, "shuffled")
    old = champion(repo)
    seeds = ("--set", "retrain.seeds=[0,1]")
    code, said = room.retrain(repo, *seeds)
    told = room.report(repo)
    assert (code, told["ending"], champion(repo)) == (0, "refused", old)
    assert told["decision"]["seeds"] == {"candidate": 2, "champion": 1}
    assert told["decision"]["reason"] in said
    assert len(room.ran(repo)) == 4
    code, said = room.retrain(repo, *seeds)
    assert code == 0
    assert "the gate refused them: " + told["decision"]["reason"] in said
    assert room.report(repo)["ending"] == "nothing"
    assert room.ran(repo) == []
    relaxed = ("--set", "promote.margins.tasks=90")  # nothing to train, but another question to the gate
    assert "the gate refused them" not in room.retrain(repo, *seeds, *relaxed, "--dry-run")[1]
    assert room.retrain(repo, *seeds, *relaxed)[0] == 0
    assert (room.report(repo)["ending"], room.ran(repo)) == ("refused", [])


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"promote": {"margins": {"size": 0.5}}}, True),
        ({"promote": {"confidence": 0.9}}, True),
        ({"compare": {"protocol": "paper"}}, True),
        ({"benchmark": {"fidelity_samples": 61}}, True),
        ({"promote": {"licence": "CC0"}}, False),
        ({"tracking": {"experiment": "another"}}, False),
    ],
)
def test_a_refusal_is_remembered_for_what_was_judged_as_then(first, monkeypatch, change, anew):
    monkeypatch.chdir(first)
    tree = room.params(str(first.parent / "champion"))
    before = plan(validate(tree, where="test"))
    after = plan(validate({**tree, **{name: {**tree[name], **keys} for name, keys in change.items()}}, where="test"))
    assert (before.judged_as != after.judged_as) is anew
    assert before.inputs == after.inputs  # under which DVC's remote has the students


def test_failed_or_killed_it_changes_nothing_and_goes_on_from_there(repo):
    room.tar(repo, 1)
    before = room.outside(repo.parent)
    (repo.parent / "fail").write_text("4")
    code, said = room.retrain(repo)
    assert code == 4
    errors = [line for line in said.splitlines() if line.startswith("cliprd: error: ")]
    assert "dvc repro: it was told to fail. The champion stays as it was." in errors[-1]
    assert room.report(repo)["ending"] == "failed"
    assert "it was told to fail" in (repo / "work" / "retrain" / "report.md").read_text()
    assert room.outside(repo.parent) == before
    (repo.parent / "fail").unlink()

    (repo.parent / "hang").touch()
    training = subprocess.Popen(["cliprd", "retrain"], cwd=repo, stdout=subprocess.DEVNULL)
    wait_for((repo.parent / "hanging").exists, training)
    code, said = room.retrain(repo)
    assert code == 5
    assert f"A retraining is running here already: process {training.pid}" in said
    assert room.outside(repo.parent) == before
    workers = at_work(repo)
    assert workers
    training.kill()
    training.wait()
    wait_for(lambda: not at_work(repo))  # dvc and the stage end with it
    wait_for(
        lambda: not any(Path("/proc", pid).exists() for pid in workers)
    )  # DVC's locks hold while init has not reaped
    assert not (repo / "work" / "retrain" / "report.json").exists()
    assert room.outside(repo.parent) == before
    (repo.parent / "hang").unlink()
    code, said = room.retrain(repo)
    assert code == 0, said
    assert room.report(repo)["ending"] == "promoted"


def test_killed_between_push_and_promotion_the_next_promotes_without_training(repo, monkeypatch):
    """A named pipe in the champion's place holds the promotion up, as a slow store would, until the kill."""
    room.tar(repo, 1)
    room.prepare(repo)
    place, old = repo.parent / "champion", champion(repo)
    lock = place / ".champion.json.lock"
    lock.unlink(missing_ok=True)
    os.mkfifo(lock)
    held = os.open(lock, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    training = subprocess.Popen(["cliprd", "retrain"], cwd=repo, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list((place).glob("*/student/manifest.json"))) == 2, training)
        assert champion(repo) == old
        assert any(path.startswith("remote/cliprd/locks") for path in room.outside(repo.parent))
    finally:
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        os.close(held)
        lock.unlink()
    assert champion(repo) == old
    room.ran(repo)
    code, said = room.retrain(repo)
    assert code == 0, said
    assert room.ran(repo) == []
    assert room.report(repo)["ending"] == "promoted"
    assert champion(repo) != old


def test_what_a_pull_request_has_trained_is_promoted_after_the_merge_without_training(repo):
    room.tar(repo, 1)
    room.commit(repo, "a shard")
    old = champion(repo)
    asked, merged = repo.parent / "asked", repo.parent / "merged"
    run(repo.parent, "git", "clone", "-q", "repo", str(asked))
    assert room.retrain(asked, "--no-promote")[0] == 0
    assert (room.report(asked)["ending"], champion(repo)) == ("passed", old)
    room.ran(asked)
    run(repo.parent, "git", "clone", "-q", "repo", str(merged))
    assert "Nothing: the same inputs were trained before" in room.retrain(merged, "--dry-run")[1]
    assert room.retrain(merged)[0] == 0
    assert room.ran(merged) == []
    assert room.report(merged)["ending"] == "promoted"
    assert champion(repo) == room.report(merged)["version"] != old
    assert (merged / "dvc.lock").read_bytes() == (asked / "dvc.lock").read_bytes()
    assert "up to date" in run(merged, "dvc", "status", "distill@baseline-0", "benchmark@baseline-0").stdout


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"retrain": {"method": "xrd-raw"}}, "ablation.methods"),
        ({"retrain": {"method": "baseline", "seeds": [7]}}, "ablation.seeds"),
        ({"retrain": {"method": "baseline", "seeds": [0, 0]}}, "twice"),
        ({"distill": {"epochs": 7}}, "params.yaml"),
    ],
)
def test_what_dvc_would_not_train_is_refused(first, monkeypatch, change, word):
    monkeypatch.chdir(first)
    with pytest.raises(ParamsError, match=word):
        Repository(validate({**room.params("champion"), **change}, where="test"))


@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD\nschema: '2.0'\n=======\n", "schema: '2.0'\n", "- a list\n"])
def test_a_damaged_lock_is_told(first, tmp_path, monkeypatch, text):
    monkeypatch.chdir(first)
    repository = Repository(load(first / "params.yaml"))
    monkeypatch.setattr("cliprd.retrain.dvc.LOCK", tmp_path / "dvc.lock")
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(InputError, match=r"dvc\.lock is damaged"):
        repository._recall(room.report(first)["inputs"])
    assert (tmp_path / "dvc.lock").read_text() == text


def test_without_git_the_report_has_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision() == {}


def test_a_licence_that_is_not_there_is_told_before_the_training(first, monkeypatch):
    monkeypatch.chdir(first)
    tree = {**room.params("models:/mine"), "promote": {"champion": "models:/mine", "licence": "nowhere.md"}}
    with pytest.raises(InputError, match=r"promote\.licence = nowhere\.md"):
        plan(validate(tree, where="test"))


def test_without_a_place_for_a_champion_there_is_nothing_to_hold_against(first):
    code, said = room.retrain(first, "--dry-run", "--set", "promote.champion=")
    assert code == 2
    assert "promote.champion" in said
