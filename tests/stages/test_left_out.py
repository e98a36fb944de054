"""Tasks that cannot be scored, beside ones that can: left out by name in everything that a benchmark leads to."""

import json
import shutil

import pytest

from cliprd import params
from cliprd.artifact import manifest
from cliprd.cli import main
from cliprd.files import atomic_write
from cliprd.promotion import gate
from cliprd.stages import benchmark
from tests.benchmark.tools import STUDENT, classification, picture, retrieval, student, write_shards
from tests.report import folders
from tests.tracking.trainings import inputs, record, training, tree

WHY = "tasks of type 'captioning' are not supported"
HISTORY = "step,epoch,loss,task,student_scale,grad_norm,lr\n1,0,2.0,2.0,14.0,1.0,0.001\n2,0,1.5,1.5,14.0,1.0,0.001\n"


def selection(root, name, *, n=14):
    samples = [
        [(f"k{i:04d}.png", picture(i)), (f"k{i:04d}.txt", f"a thing called {i}\na thing called {i + 1}".encode())]
        for i in range(n)
    ]
    write_shards(root / name, samples, 1)
    (root / name / "dataset_type.txt").write_text("image_caption_selection\n")
    return root / name


def trained(folder, seed, run):
    """A folder as `distill` leaves it."""
    student(folder, seed=seed)
    with atomic_write(folder / "history.csv", "w") as file:
        file.write(HISTORY)
    described = {"distill": {"method": run.rpartition("-")[0], "seed": 0}, "student": STUDENT.model_dump(mode="json")}
    manifest.write(folder, stage="distill", params=described, inputs={}, facts={"run": run})
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A teacher and two students, benchmarked on four kinds of tasks of which two can be scored, by the command."""
    root = tmp_path_factory.mktemp("left-out")
    tasks = root / "tasks"
    classification(tasks)
    selection(tasks, "choice")
    for name in ("captioned", "vtab/words"):
        (retrieval(tasks, name) / "dataset_type.txt").write_text("captioning\n")
    section = {"tasks": str(tasks), "batch_size": 8, "bootstrap": 50, "speed": False}
    settings = {
        "benchmark": section, "student": STUDENT.model_dump(mode="json"), "tracking": {"uri": ""},
        "ablation": {"methods": ["baseline", "clip_kd"], "seeds": [0]},
        "promote": {"champion": str(root / "champion")},
    }  # fmt: skip
    (root / "params.yaml").write_text(params.dump(params.validate(settings, where="test")))
    for seed, run in enumerate(("baseline-0", "clip_kd-0"), 2):
        trained(root / "students" / run, seed, run)
    trained(root / "teacher", 1, "teacher-0")
    return root


def command(place, *arguments):
    return main([*map(str, arguments), "--params", str(place / "params.yaml")])


def benchmarked(place, name, model, *more):
    where = place / "benchmark" / name
    return command(place, "benchmark", "--model", place / model, "--output", where, *more)


def results(place, name):
    return json.loads((place / "benchmark" / name / "results.json").read_text())


def test_benchmark_compare_and_gate_name_what_was_left_out(place, capsys):
    assert benchmarked(place, "teacher", "teacher") == 0
    said = f"left_out captioned ({WHY}); vtab-words ({WHY})"
    assert said in capsys.readouterr().out
    for run in ("baseline-0", "clip_kd-0"):
        assert benchmarked(place, run, f"students/{run}", "--reference", place / "benchmark" / "teacher") == 0
        assert said in capsys.readouterr().out
        assert results(place, run)["left_out"] == {"captioned": WHY, "vtab-words": WHY}
        assert set(results(place, run)["tasks"]) == {"choice", "flags"}
    assert benchmarked(place, "teacher", "teacher") == 0  # finished before: said again
    assert said in capsys.readouterr().out

    folders = ["--benchmarks", place / "benchmark", "--students", place / "students", "--output", place / "out"]
    assert command(place, "compare", *folders) == 0
    assert said in capsys.readouterr().out
    content = json.loads((place / "out" / "comparison.json").read_text())
    assert content["left_out"] == {"captioned": WHY, "vtab-words": WHY}
    assert content["tasks"]["choice"]["metric"] == "text_acc"
    assert content["tasks"]["choice"]["chance"] == 0.5
    line = f"Left out, not scored: captioned ({WHY}); vtab-words ({WHY})."
    assert line in (place / "out" / "comparison.md").read_text()
    assert line in (place / "out" / "index.html").read_text().replace("&#39;", "'")


def test_the_gate_refuses_a_candidate_whose_task_was_left_out(place, tmp_path):
    tree = params.load(place / "params.yaml", [])
    if not (place / "benchmark" / "clip_kd-0").is_dir():
        assert benchmarked(place, "clip_kd-0", "students/clip_kd-0") == 0
    shutil.copytree(place / "tasks", tmp_path / "tasks")
    (tmp_path / "tasks" / "captioned" / "dataset_type.txt").write_text("retrieval\n")
    more = tree.benchmark.model_copy(update={"tasks": str(tmp_path / "tasks")})
    wide = tree.model_copy(update={"benchmark": more})
    benchmark.run(wide, {"model": place / "students" / "baseline-0"}, tmp_path / "champion")
    out = tmp_path / "promoted"
    assert command(
        place, "promote", "--student", place / "students" / "baseline-0", "--benchmark", tmp_path / "champion",
        "--output", out, "--set", f"promote.champion={tmp_path / 'place'}", "--allow-guessing",
    ) == 0  # fmt: skip
    crowned = tree.model_copy(
        update={
            "promote": tree.promote.model_copy(update={"champion": str(tmp_path / "place"), "allow_guessing": True})
        }
    )
    gate.run(crowned, {"candidate": place / "benchmark" / "clip_kd-0"}, tmp_path / "gate")
    decision = json.loads((tmp_path / "gate" / "decision.json").read_text())
    assert not decision["passed"]
    assert decision["verdict"] == "not comparable"
    assert decision["reason"].startswith(f"task 'captioned' was left out of the candidate's benchmark ({WHY})")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (["benchmark.names=[captioned, flags]"], 2, f"benchmark.names: task 'captioned' of {{tasks}}: {WHY}."),
        (["benchmark.names=[vtab/words]"], 2, f"benchmark.names: task 'vtab-words' of {{tasks}}: {WHY}."),
        (["benchmark.names=[vtab/flags]"], 2, "no task 'vtab/flags' in {tasks}"),
        (["benchmark.tasks={tasks}/vtab"], 3, f"no task of {{tasks}}/vtab can be scored (words: {WHY})"),
    ],
)
def test_what_cannot_be_meant_is_refused(place, tmp_path, capsys, changes, code, said):
    overrides = [part for change in changes for part in ("--set", change.replace("{tasks}", str(place / "tasks")))]
    arguments = ["--model", place / "teacher", "--output", tmp_path / "out", *overrides]
    assert command(place, "benchmark", *arguments) == code
    assert said.replace("{tasks}", str(place / "tasks")) in capsys.readouterr().err


def test_damage_is_an_error_and_leaves_nothing_out(place, tmp_path, capsys):
    shutil.copytree(place / "tasks", tmp_path / "tasks")
    tar = tmp_path / "tasks" / "choice" / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    where = [
        "--model",
        place / "teacher",
        "--output",
        tmp_path / "out",
        "--set",
        f"benchmark.tasks={tmp_path / 'tasks'}",
    ]
    assert command(place, "benchmark", *where) == 3
    assert "choice/test/0.tar is damaged" in capsys.readouterr().err


def test_mlflow_has_it_as_a_tag(tmp_path):
    from mlflow import MlflowClient

    from cliprd.tracking import scores

    settings = tree(f"sqlite:///{tmp_path / 'mlflow.db'}")
    grid = folders.write_grid(tmp_path / "grid", ["clip_kd"], [0], only=folders.tasks()[:1])
    student, scored = (grid[kind] / "clip_kd-0" for kind in ("students", "benchmarks"))
    (scored / "scores.json").write_text("{}")
    with training(settings, inputs(tmp_path), student) as write:
        write(record(1))
    client = MlflowClient(settings.tracking.uri)

    def tag(seed, **facts):
        found = manifest.read(scored)
        manifest.write(scored, stage="benchmark", params={"seed": seed}, inputs=found.inputs, facts=facts)
        scores.log_scores(settings, student, scored, None)
        experiment = client.get_experiment_by_name("cliprd").experiment_id
        (run,) = client.search_runs([experiment], "tags.`cliprd.kind` = 'training'")
        assert run.data.tags["cliprd.benchmark"] == manifest.read(scored).fingerprint
        return run.data.tags.get("cliprd.left_out")

    assert tag(0) is None
    assert tag(1, left_out=f"captioned ({WHY})") == f"captioned ({WHY})"
    assert tag(2) == ""
