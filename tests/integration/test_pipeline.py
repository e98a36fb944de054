"""`dvc repro` end to end on real images: it works, it is killed everywhere, it is damaged, it is asked again."""

import contextlib
import csv
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from cliprd import cli
from tests.integration.pipeline import STAGES, kill_when, make, manifests, run
from tests.integration.test_dvc_inputs import stages_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    """A pipeline that ran undisturbed."""
    folder = make(tmp_path_factory.mktemp("pipeline") / "repo")
    run(folder, "dvc", "repro")
    return folder


@pytest.fixture
def copy(repo, tmp_path) -> Path:
    """A copy to damage."""
    shutil.copytree(repo, tmp_path / "repo", symlinks=True)
    return tmp_path / "repo"


def test_every_stage_leaves_a_whole_folder_and_nothing_else(repo):
    from cliprd.artifact import manifest

    found = {manifest.verify(repo / Path(name).parent).stage for name in manifests(repo)}
    assert found | {manifest.verify(repo / "reports").stage} == {
        "prepare",
        "teacher",
        "cache",
        "distill",
        "benchmark",
        "compare",
    }
    litter = [p for p in (repo / "work").rglob(".*") if p.name != ".gitignore"]
    assert not litter
    for name in ("comparison.json", "comparison.md", "index.html"):
        assert (repo / "reports" / name).stat().st_size > 500


def test_the_history_holds_every_term(repo):
    with (repo / "work/students/clip_rd-exp-0/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 15))  # 300 samples, batches of at most 48, 2 epochs
    for term in ("task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text", "xrd"):
        assert all(float(row[term]) >= 0 for row in rows)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_nothing_changed_nothing_runs(repo):
    before = {path: path.stat().st_mtime_ns for path in (repo / "work").rglob("*")}
    assert stages_run(run(repo, "dvc", "repro").stdout) == set()
    assert before == {path: path.stat().st_mtime_ns for path in (repo / "work").rglob("*")}


def test_dvc_shows_metrics_plots_and_params(repo):
    shown = json.loads(run(repo, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {f"reports/metrics/{name}.json" for name in ("teacher", "clip_kd", "clip_rd-exp")}
    assert all(row["data"].keys() == {"mean", "tuxpaint_photos", "tuxpaint_captions"} for row in shown.values())
    run(repo, "dvc", "plots", "show", "--out", "plots")
    assert "task_loss" in (repo / "plots" / "index.html").read_text()
    (repo / "params.yaml").write_text(
        (repo / "params.yaml").read_text().replace("epochs: 2\n  batch_size: 48", "epochs: 3\n  batch_size: 48")
    )
    try:
        assert "distill.epochs" in run(repo, "dvc", "params", "diff").stdout
    finally:
        run(repo, "git", "checkout", "-q", "params.yaml")


def test_trainings_scores_and_report_are_in_mlflow(repo):
    with sqlite3.connect(repo / "mlflow.db") as db:
        names = sorted(name for (name,) in db.execute("select name from runs where lifecycle_stage = 'active'"))
        keys = {key for (key,) in db.execute("select distinct key from metrics")}
    assert names[0].startswith("ablation-")
    assert names[1:] == ["clip_kd-0", "clip_rd-exp-0"]
    assert {"loss/task", "loss/xrd", "scale/cross", "score/tuxpaint_photos/standard/acc1"} <= keys


def test_killed_anywhere_and_repeated_ends_in_the_same_outputs(repo, tmp_path):
    other = make(tmp_path / "killed")
    output = {
        "prepare": "work/shards",
        "teacher": "work/teacher",
        "cache": "work/cache",
        "distill": "work/students/clip_rd-exp-0",
        "benchmark-teacher": "work/benchmark/teacher",
        "benchmark": "work/benchmark/clip_kd-0",
        "compare": "reports",
    }
    progress = {  # killed when there is something half done to trip over
        "cache": lambda: len(list((other / "work/cache").glob("*.safetensors"))) >= 1,
        "distill": lambda: any((other / output["distill"] / ".checkpoint").glob("step*")),
        "benchmark": lambda: any((other / output["benchmark"]).glob("embeddings/*.safetensors")),
    }
    for stage in STAGES:
        begun = other / output[stage] / ".work.json"
        assert kill_when(other, progress.get(stage, begun.exists), "dvc", "repro"), (other / "killed.log").read_text()[
            -3000:
        ]
        assert not (other / output[stage] / "manifest.json").exists()
    run(other, "dvc", "repro")
    assert manifests(other) == manifests(repo)
    assert (other / "reports/comparison.json").read_bytes() == (repo / "reports/comparison.json").read_bytes()
    with sqlite3.connect(other / "mlflow.db") as db:
        twice = db.execute("select run_uuid, key, step, count(*) from metrics group by 1, 2, 3 having count(*) > 1")
        assert twice.fetchall() == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("work/shards/00000-00001.tar", "cache"),
        ("work/shards/index.json", "distill"),
        ("work/shards/manifest.json", "teacher"),
        ("work/teacher/heads.safetensors", "cache"),
        ("work/cache/00000-00002.safetensors", "distill"),
        ("work/cache/manifest.json", "distill"),
        ("work/students/clip_kd-0/open_clip_model.safetensors", "benchmark"),
        ("work/students/clip_kd-0/loss.safetensors", "benchmark"),
        ("work/benchmark/clip_kd-0/outcomes/tuxpaint_photos.safetensors", "compare"),
    ],
)
def test_a_flipped_byte_is_found_and_named(copy, target, command, capsys):
    flip(copy / target)
    arguments = {
        "teacher": ["--shards", "work/shards"],
        "cache": ["--shards", "work/shards", "--teacher", "work/teacher"],
        "distill": ["--shards", "work/shards", "--cache", "work/cache"],
        "benchmark": ["--model", "work/students/clip_kd-0", "--reference", "work/benchmark/teacher"],
        "compare": ["--benchmarks", "work/benchmark", "--students", "work/students"],
    }[command]
    with contextlib.chdir(copy):
        assert cli.main([command, *arguments, "--output", "out"]) == 3
    told = capsys.readouterr().err
    assert target in told
    assert "Traceback" not in told


def test_dvc_mends_a_flipped_byte_by_running_the_stage_again(copy, repo):
    flip(copy / "work/cache/00000-00001.safetensors")
    out = run(copy, "dvc", "repro")
    assert "work/cache/00000-00001.safetensors" in out.stderr + out.stdout
    assert manifests(copy) == manifests(repo)
