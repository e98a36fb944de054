"""The whole story with nothing stood in for but GitHub itself: CI's workflow trains, gates and promotes.

A champion is trained and promoted; a shard of data is added, and its pull request trains, is commented on and, merged,
promoted without training anew; a bad change (captions shuffled) is trained and refused with the reason. MLflow's server
with its registry, S3 under DVC, git, DVC and the trainings are real; act runs the workflow's jobs.

The verdicts do not hang on luck: the first shard knows three of eight colours, the second all others, and shuffled
captions say nothing of any. On CPUs the trainings are the same from run to run; between kinds of processors they may
differ, by far less than the tens of points that the gate is asked about here.
"""

import json
import re
import shutil

import pytest
import yaml

from cliprd import lineage
from cliprd.artifact import manifest
from cliprd.files import sha256_file
from cliprd.params import load
from cliprd.promotion import champion
from tests.integration.pipeline import ROOT, environment, run
from tests.mlflow_server import mlflow_server  # noqa: F401 (a fixture)
from tests.retrain import actions, room, shapes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

PLACE = "models:/story"


class Repository:
    """Somebody's clone, and what CI makes of what they push."""

    def __init__(self, folder, server, github) -> None:
        self.folder, self.server, self.github = folder, server, github
        self.repo = folder / "repo"
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        self.access = {name: server.environment[name] for name in names}

    def make(self) -> None:
        self.repo.mkdir()
        tree = {
            **shapes.PARAMS,
            "promote": {"champion": PLACE},
            "tracking": {"uri": self.server.uri, "experiment": "story"},
        }
        (self.repo / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        for name in ("dvc.yaml", ".gitignore"):
            shutil.copy(ROOT / name, self.repo)
        for name in ("src", ".github"):
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, self.repo / name, ignore=ignore)
        shapes.tasks(self.repo / "data" / "tasks")
        run(self.repo, "git", "init", "-q", "-b", "main", ".")
        run(self.repo, "dvc", "init", "-q")
        run(self.repo, "dvc", "remote", "add", "-q", "-d", "store", "s3://story/dvc")
        run(self.folder, "git", "init", "-q", "--bare", "-b", "main", "origin")
        run(self.repo, "git", "remote", "add", "origin", str(self.folder / "origin"))
        actions.repository(self.repo)

    def shard(self, name: str, colours, samples: int, **options) -> None:
        (self.repo / "data" / "train").mkdir(exist_ok=True, parents=True)
        shapes.shard(self.repo / "data" / "train" / name, colours, samples, seed=int(name[:5]), **options)

    def commit(self, message: str) -> None:
        """As somebody does who has changed data: to DVC with them, their pointer into git."""
        run(self.repo, "dvc", "add", "-q", "data/train")
        run(self.repo, "dvc", "push", "-q", "data/train.dvc", env=self.access)
        room.commit(self.repo, message)

    def ci(self, event: str, content) -> str:
        """The workflow's log."""
        secrets = {name: self.access[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        result = actions.act(
            self.repo,
            event,
            content,
            room=self.folder / "act",
            env={"GITHUB_API_URL": self.github.url},
            secrets={**secrets, "GITHUB_TOKEN": self.github.token},
            variables={"AWS_ENDPOINT_URL": self.access["AWS_ENDPOINT_URL"]},
        )
        assert result.returncode == 0, result.stdout[-8000:]
        assert secrets["AWS_SECRET_ACCESS_KEY"] not in result.stdout
        return result.stdout

    def ask(self, number: int, branch: str) -> tuple[str, str]:
        """CI's log of a pull request, and its comment."""
        base = run(self.repo, "git", "rev-parse", "main").stdout.strip()
        log = self.ci("pull_request", actions.pull_request(number, base=base))
        (comment,) = self.github.comments[number]
        return log, comment["body"]

    def merge(self, branch: str) -> str:
        """CI's log of the push after the merge."""
        run(self.repo, "git", "switch", "-q", "main")
        run(self.repo, "git", "merge", "-q", branch)
        return self.push()

    def push(self) -> str:
        run(self.repo, "git", "push", "-q", "origin", "main")
        log = self.ci("push", actions.MAIN)
        run(self.repo, "git", "pull", "-q", "origin", "main")
        return log

    def champion(self) -> champion.Champion:
        held = champion.current(PLACE, load(self.repo / "params.yaml"))
        assert held is not None
        return held

    def sources(self) -> dict[str, str]:
        return {path.name: sha256_file(path) for path in sorted((self.repo / "data" / "train").glob("*.tar"))}


@pytest.fixture
def story(tmp_path, mlflow_server, monkeypatch):  # noqa: F811
    for name, value in {**environment(), "OMP_NUM_THREADS": "1", "CLIPRD_SCRATCH": str(tmp_path / "scratch")}.items():
        monkeypatch.setenv(name, value)
    (mlflow_server.log.parent / "buckets" / "story").mkdir()
    with actions.github() as github:
        repository = Repository(tmp_path, mlflow_server, github)
        repository.make()
        yield repository


def test_the_story(story):
    from mlflow import MlflowClient

    registry = MlflowClient(story.server.uri, story.server.uri)

    story.shard("00000.tar", shapes.FIRST, 120)
    story.commit("the first shard")
    log = story.push()
    assert "Running stage 'distill@baseline-0'" in log
    first = story.champion()
    assert (first.version, sources(first.lineage)) == ("1", story.sources())

    run(story.repo, "git", "switch", "-qc", "more")
    story.shard("00001.tar", shapes.REST, 240)
    story.commit("the other colours")
    log, comment = story.ask(1, "more")
    assert "Running stage 'distill@baseline-0'" in log
    assert "## Retraining: passed the gate; not promoted, as was asked" in comment
    assert f"| data | `00001.tar` | – | `{story.sources()['00001.tar'][:12]}` |" in comment
    assert story.champion().version == "1"

    log = story.merge("more")
    assert set(re.findall("Running stage '([^']+)'", log)) <= {"inputs"}
    second = story.champion()
    version = registry.get_model_version_by_alias("story", "champion")
    assert (second.version, version.version) == ("2", "2")
    assert sources(second.lineage) == story.sources()
    decision = json.loads(version.tags["cliprd.gate"])
    assert decision["passed"] is True
    assert decision["mean"]["low"] > 0.1
    assert f"**The gate:** {decision['reason']}".replace("[", "\\[").replace("]", "\\]") in comment
    assert version.tags["cliprd.asked_by.who"] == "somebody"

    clone = story.folder / "clone"  # what DVC's remote has is what the registry has
    run(story.folder, "git", "clone", "-q", "origin", str(clone))
    targets = ("distill@baseline-0", "benchmark@baseline-0")
    run(clone, "dvc", "pull", "-q", *targets, env=story.access)
    student = manifest.verify(clone / "work/students/baseline-0", stage="distill")
    assert student.fingerprint == manifest.read(second.student()).fingerprint
    assert lineage.of(clone / "work/benchmark/baseline-0") == second.lineage
    assert "didn't change" in run(clone, "dvc", "repro", "--dry", "--allow-missing", *targets, env=story.access).stdout

    run(story.repo, "git", "switch", "-qc", "bad")
    story.shard("00000.tar", shapes.FIRST, 120, shuffled=True)
    story.shard("00001.tar", shapes.REST, 240, shuffled=True)
    story.commit("captions of other pictures")
    log, comment = story.ask(2, "bad")
    assert "Running stage 'distill@baseline-0'" in log
    assert "## Retraining: refused by the gate" in comment
    assert "significantly worse" in comment

    log = story.merge("bad")  # nobody listened
    assert set(re.findall("Running stage '([^']+)'", log)) <= {"inputs"}
    assert "Retraining: refused by the gate" in log
    assert story.champion().version == "2"
    refused = registry.get_model_version_by_alias("story", "candidate")
    assert refused.version == "3"
    assert refused.tags["cliprd.gate.reason"].endswith("significantly worse")
    log = story.ci("schedule", actions.MAIN)
    assert "the gate refused them" in log


def sources(tree) -> dict[str, str]:
    return {part["name"]: part["fingerprint"] for part in tree["inputs"]["shards"]["sources"]}
