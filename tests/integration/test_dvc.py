"""DVC with a remote on a real S3 server: a clone gets all and makes nothing; one raw shard more; a queue."""

import json
import shutil
import time
from pathlib import Path

import pytest

from cliprd.artifact.manifest import CODE
from tests import s3_server
from tests.integration import dvc_repository
from tests.integration.pipeline import ROOT, run
from tests.integration.test_dvc_inputs import stages_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

STAGES = ["prepare", "teacher", "cache", "distill@baseline-0", "benchmark-teacher", "benchmark@baseline-0", "compare"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository that was reproduced, committed and pushed; its outputs here are gone."""
    root = tmp_path_factory.mktemp("dvc")
    (root / "s3" / "bucket").mkdir(parents=True)
    with s3_server.running(root / "s3") as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        weights = dvc_repository.write_teacher(root / "teacher.safetensors")
        repo = dvc_repository.make(root / "repo", weights, "s3://bucket/dvc", env["AWS_ENDPOINT_URL"])
        run(repo, "dvc", "repro")
        dvc_repository.commit(repo, "trained")
        run(repo, "dvc", "push", "--run-cache")
        yield repo


def clone(origin: Path, folder: Path) -> Path:
    run(origin, "git", "clone", "-q", str(origin), str(folder))
    run(folder, "git", "config", "user.name", "t")
    run(folder, "git", "config", "user.email", "t@t")
    return folder


def manifests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for place in ("work", "reports")
        for path in sorted((folder / place).rglob("manifest.json"))
    }


def test_a_clone_pulls_everything_and_makes_nothing(origin, tmp_path):
    there = clone(origin, tmp_path / "clone")
    run(there, "dvc", "pull")
    assert manifests(there) == manifests(origin)
    assert json.loads(run(there, "dvc", "status", "--json").stdout) == {"inputs": ["always changed"]}
    assert stages_run(run(there, "dvc", "repro").stdout) == set()
    assert run(there, "git", "status", "--short").stdout == ""
    shown = json.loads(run(there, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {"reports/metrics/teacher.json", "reports/metrics/baseline.json"}
    run(there, "dvc", "plots", "show", "--out", "plots")
    assert "task_loss" in (there / "plots/index.html").read_text()
    told = run(there, "cliprd", "lineage", "work/benchmark/baseline-0").stdout
    assert all(f"{number:05d}.tar" in told for number in range(3))
    one_shard_more(there)


def one_shard_more(there: Path) -> None:
    """In what was pulled, only the new shard is packed and embedded; going back needs no stage at all."""
    before = {path.name: path.read_bytes() for path in (there / "work/cache").glob("*.safetensors")}
    dvc_repository.raw_shard(there, 3)
    out = run(there, "dvc", "repro")
    assert "prepare: 3 sources kept as they were, 1 packed" in out.stderr
    assert "cache: 1 shards embedded, 3 reused" in out.stderr
    after = {path.name: path.read_bytes() for path in (there / "work/cache").glob("*.safetensors")}
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"00003-00000.safetensors"}
    assert "Stage 'benchmark-teacher' didn't change, skipping" in out.stdout
    assert "00003.tar" in run(there, "cliprd", "lineage", "work/students/baseline-0").stdout
    (there / "data/train/00003.tar").unlink()
    run(there, "git", "checkout", "-q", "dvc.lock")
    run(there, "dvc", "checkout")
    assert stages_run(run(there, "dvc", "repro").stdout) == set()


def test_an_edit_of_code_that_changes_no_byte_reruns_its_stage_alone(origin, tmp_path):
    there = clone(origin, tmp_path / "clone")
    run(there, "dvc", "pull")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    edited = {"PYTHONPATH": str(tmp_path / "src")}
    with (tmp_path / "src/cliprd/data/packing.py").open("a") as file:
        file.write("\n\n# A comment\n")
    assert stages_run(run(there, "dvc", "repro", env=edited).stdout) == set()
    with (tmp_path / "src/cliprd/data/packing.py").open("a") as file:
        file.write("\nUNUSED = 1\n")
    assert stages_run(run(there, "dvc", "repro", env=edited).stdout) == {"prepare"}
    assert manifests(there) == manifests(origin)
    assert (there / "work/shards" / CODE).read_bytes() != (origin / "work/shards" / CODE).read_bytes()


def test_experiments_are_queued_and_applied(origin, tmp_path):
    there = clone(origin, tmp_path / "clone")
    run(there, "dvc", "pull", "--run-cache")
    run(there, "dvc", "exp", "run", "--queue", "-n", "two", "-S", "ablation.methods=[baseline,clip_kd]")
    run(there, "dvc", "queue", "start")
    deadline = time.monotonic() + 900
    while (state := run(there, "dvc", "queue", "status").stdout) and not ("Success" in state or "Failed" in state):
        assert time.monotonic() < deadline, state
        time.sleep(1)
    log = run(there, "dvc", "queue", "logs", "two").stdout
    assert "Success" in state, log
    for stage in STAGES[:-1]:
        assert f"Running stage '{stage}'" not in log
    assert "Running stage 'distill@clip_kd-0'" in log
    run(there, "dvc", "exp", "apply", "two")
    assert (there / "work/students/clip_kd-0/lineage.json").is_file()
    assert stages_run(run(there, "dvc", "repro").stdout) == set()
    shown = json.loads(run(there, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert "reports/metrics/clip_kd.json" in shown
