"""The pipelines run by KFP's local runner on real images: as `dvc repro` makes them, reused, damaged, refused."""

import json
from pathlib import Path

import pytest

from cliprd import manifest
from tests.integration.pipeline import make, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]
UNTRACKED = ("--set", "tracking.uri=''")


def pipeline(repo: Path, name: str, *arguments: str, check: bool = True):
    return run(repo, "cliprd", "pipeline", "run", name, "--local", "process", *UNTRACKED, *arguments, check=check)


def last(repo: Path) -> Path:
    return max((repo / "work/pipeline/runs").iterdir(), key=lambda path: path.name.split("-", 2)[2])  # the time


def folders(run_folder: Path) -> dict[str, Path]:
    """Stage → folder, of what this run made itself."""
    found = [path.parent for path in run_folder.rglob(manifest.NAME)]
    return {f"{manifest.read(path).stage}:{path.parent.name}": path for path in found}


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    """A repository in which the pipeline `distill` ran once."""
    folder = make(tmp_path_factory.mktemp("kubeflow") / "repo")
    assert "is whole" in pipeline(folder, "distill").stdout
    return folder


def test_every_step_leaves_a_whole_folder_and_shows_what_came_of_it(repo):
    made = folders(last(repo))
    assert {name.partition(":")[0] for name in made} == {
        "prepare",
        "teacher",
        "cache",
        "distill",
        "benchmark",
        "compare",
    }
    for folder in made.values():
        manifest.verify(folder)
    step = last(repo) / "report"
    assert "<html" in (step / "page").read_text(encoding="utf-8")
    assert "clip_rd-exp" in (step / "table").read_text(encoding="utf-8")
    assert set(json.loads((step / "scores").read_text())) == {"teacher", "clip_rd-exp"}
    shown = json.loads((last(repo) / "benchmark" / "confusion").read_text())
    counts = [sum(row) for row in shown["counts"]]
    assert len(shown["classes"]) == len(counts) == 17
    assert sum(counts) == 60


def test_the_student_is_the_one_that_the_command_line_makes(repo, tmp_path):
    made = folders(last(repo))
    run(
        repo, "cliprd", "distill", "--shards", str(made["prepare:prepare"]), "--cache", str(made["cache:cache"]),
        "--method", "clip_rd-exp", "--seed", "0", "--output", str(tmp_path / "student"), *UNTRACKED,
    )  # fmt: skip
    assert manifest.read(tmp_path / "student").fingerprint == manifest.read(made["distill:distill"]).fingerprint


def test_an_ablation_uses_what_was_made_and_trains_the_rest(repo):
    pipeline(repo, "ablation")
    names = {name.partition(":")[0] for name in folders(last(repo))}
    assert names == {"distill", "benchmark", "compare"}  # the teacher's side came from the cache
    (compared,) = last(repo).rglob("comparison.json")
    assert set(json.loads(compared.read_text())["protocols"]["standard"]["methods"]) == {"clip_kd", "clip_rd-exp"}
    assert "every step was finished already" in pipeline(repo, "ablation").stdout


def test_a_damaged_output_is_made_again_and_only_that(repo):
    victim = sorted((repo / "work/pipeline/runs").rglob("open_clip_model.safetensors"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    result = pipeline(repo, "ablation")
    assert f"{victim} is damaged" in result.stderr
    assert {name.partition(":")[0] for name in folders(last(repo))} <= {"distill", "benchmark", "compare"}
    assert len(list(last(repo).rglob("open_clip_model.safetensors"))) == 1


def test_wrong_input_ends_the_run_at_its_step_with_the_stages_own_words(repo):
    before = set((repo / "work/pipeline/runs").iterdir())
    result = pipeline(repo, "distill", "--input", "method=clip_kdd", check=False)
    assert result.returncode == 1
    assert "'clip_kdd' is no method" in result.stdout
    assert "Inner task failed" in result.stderr
    assert "Traceback" not in result.stderr
    (new,) = set((repo / "work/pipeline/runs").iterdir()) - before
    assert not folders(new)
