"""What lies outside the repository drives `dvc repro`: changed bytes run what depends on them, and nothing else runs.

`dvc.yaml` is the shipped one, `inputs` and `prepare` are real; what comes after them is stood in for by a digest of
what it reads, as its training would take the time of the test a hundred times.
"""

import json
import os
import shutil
import tarfile

import pytest
import yaml

from tests import s3_server
from tests.data.pictures import pairs, png, write_tar
from tests.integration.pipeline import ROOT, environment, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

STAND_IN = """
import hashlib, pathlib, sys
output, *inputs = map(pathlib.Path, sys.argv[1:])
output.mkdir(parents=True, exist_ok=True)
(output / "manifest.json").write_text(hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest())
"""
STUDENT = "baseline-0"
READ = {  # what each stage's result follows from; a teacher from open_clip does not follow from the shards
    "teacher": ["work/inputs/teacher.json"],
    "cache": ["work/shards/manifest.json", "work/teacher/manifest.json"],
    "distill": ["work/shards/manifest.json", "work/cache/manifest.json", "params.yaml"],
    "benchmark-teacher": ["work/inputs/benchmark.json", "work/teacher/manifest.json"],
    "benchmark": ["work/inputs/benchmark.json", f"work/students/{STUDENT}/manifest.json"],
    "compare": [f"work/benchmark/{STUDENT}/manifest.json", f"work/students/{STUDENT}/manifest.json"],
}
OF_STUDENT = {"cache", f"distill@{STUDENT}", f"benchmark@{STUDENT}", "compare"}
DATA = {"prepare", "teacher", *OF_STUDENT}  # the demo teacher is trained on the shards, so `teacher` is asked
TASKS = {"benchmark-teacher", f"benchmark@{STUDENT}", "compare"}
TEACHER = {"teacher", "benchmark-teacher", *OF_STUDENT}
NOTHING = set()


class Repository:
    """A user's, with its parameters; `outside` is the folder beside it where data, tasks and weights lie."""

    def __init__(self, outside):
        self.outside = outside
        self.folder = outside / "repo"
        self.folder.mkdir(parents=True)
        pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
        for name, stage in pipeline["stages"].items():
            if name in READ:
                (output,) = stage["outs"][0]
                stage["cmd"] = f"python stand_in.py {output} {' '.join(READ[name])}"
            if "deps" in stage:
                stage["deps"] = [path for path in stage["deps"] if not path.startswith("src/")]
        del pipeline["plots"]
        (self.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
        (self.folder / "stand_in.py").write_text(STAND_IN)
        self.params = {
            "data": {"max_bad_fraction": 1.0},
            "teacher": {"name": f"open_clip:ViT-T-16:{outside}/teacher.pt"},
            "cache": {},
            "augmentation": {},
            "student": {},
            "distill": {},
            "ablation": {"methods": ["baseline"], "seeds": [0]},
            "benchmark": {"tasks": str(outside / "tasks")},
            "compare": {},
        }
        (outside / "teacher.pt").write_bytes(b"weights")
        write_task(outside / "tasks/one")
        run(self.folder, "git", "init", "-q", ".")
        run(self.folder, "dvc", "init", "-q")

    def put(self, section: str, **values) -> None:
        self.params[section] |= values
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))

    def ran(self) -> set[str]:
        """`dvc repro`; the stages that ran, beside the one that looks."""
        return stages_run(run(self.folder, "dvc", "repro").stdout)


def stages_run(said: str) -> set[str]:
    lines = [line for line in said.splitlines() if line.startswith("Running stage '")]
    assert lines[0] == "Running stage 'inputs':"
    return {line.split("'")[1] for line in lines[1:]}


def write_task(folder, seed=0):
    write_tar(folder / "test/0.tar", [("a.png", png(seed)), ("a.cls", b"0")])
    (folder / "test/nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("cat\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c}\n")


@pytest.fixture
def repo(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    return Repository(tmp_path / "outside")


CHANGES = {
    "a tar of a brace pattern": (lambda out: write_tar(out / "raw/1.tar", pairs(2, start=20)), DATA),
    "an image of a task": (lambda out: write_task(out / "tasks/one", seed=5), TASKS),
    "weights": (lambda out: (out / "teacher.pt").write_bytes(b"weightS"), TEACHER),
}


def test_what_changed_runs_what_depends_on_it(repo):
    for number in range(2):
        write_tar(repo.outside / f"raw/{number}.tar", pairs(2, start=2 * number))
    repo.put("data", path=f"{repo.outside}/raw/{{0..1}}.tar")
    assert {"prepare", *TEACHER} <= repo.ran()
    os.utime(repo.outside / "raw/0.tar")
    write_tar(repo.outside / "raw/2.tar", pairs(1))
    assert repo.ran() == NOTHING
    for name, (act, expected) in CHANGES.items():
        act(repo.outside)
        assert repo.ran() == expected, name
    repo.put("distill", epochs=1)
    assert repo.ran() == OF_STUDENT - {"cache"}
    assert repo.ran() == NOTHING


@pytest.mark.parametrize("kind", ["csv", "folder"])
def test_an_image_behind_an_unchanged_table_or_folder(repo, kind):
    folder = repo.outside / "x"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    (folder / "a.txt").write_text("a")
    (folder / "t.csv").write_text("filepath\ttitle\na.png\ta\n")
    repo.put("data", kind=kind, path=str(folder / "t.csv" if kind == "csv" else folder))
    repo.ran()
    (folder / "a.png").write_bytes(png(1))
    assert repo.ran() == DATA
    assert repo.ran() == NOTHING


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s3"
    (folder / "bucket").mkdir(parents=True)
    with s3_server.running(folder) as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        import boto3

        yield boto3.client("s3")


def test_in_s3(repo, store):
    def upload(key, content):
        store.put_object(Bucket="bucket", Key=key, Body=content)

    for number in range(2):
        upload(f"raw/{number}.tar", write_tar(repo.outside / "made.tar", pairs(2, start=2 * number)).read_bytes())
    upload("teacher.pt", b"weights")
    for path in (repo.outside / "tasks").rglob("*.*"):
        upload(path.relative_to(repo.outside).as_posix(), path.read_bytes())
    repo.put("data", path="s3://bucket/raw/{0..1}.tar")
    repo.put("teacher", name="open_clip:ViT-T-16:s3://bucket/teacher.pt")
    repo.put("benchmark", tasks="s3://bucket/tasks")
    repo.ran()
    upload("tasks/one/classnames.txt", b"dog\n")
    assert repo.ran() == TASKS
    upload("raw/0.tar", write_tar(repo.outside / "made.tar", pairs(2, start=20)).read_bytes())
    assert repo.ran() == DATA
    upload("teacher.pt", b"weightS")
    assert repo.ran() == TEACHER
    assert repo.ran() == NOTHING


FAULTS = {
    "data": ("data", {"path": "/nowhere/{0..1}.tar"}, 3, "/nowhere/0.tar does not exist."),
    "a glob": ("data", {"path": "/nowhere/*.tar"}, 3, "/nowhere/*.tar holds no file that ends in .tar"),
    "tasks": ("benchmark", {"tasks": "/nowhere"}, 3, "benchmark.tasks: /nowhere does not exist."),
    "a task": ("benchmark", {"names": ["tow"]}, 2, "benchmark.names: no task 'tow'"),
    "weights in s3": ("teacher", {"name": "open_clip:ViT-T-16:s3://bucket/none.pt"}, 3, "s3://bucket/none.pt does not"),
    "weights here": (
        "teacher",
        {"name": "open_clip:ViT-T-16:/nowhere/t.pt"},
        3,
        "The teacher's weights /nowhere/t.pt do",
    ),
    "a bucket": ("data", {"path": "s3://none/x"}, 3, "s3://none/x/: no such bucket"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_told_before_anything_is_made(repo, store, fault):
    write_tar(repo.outside / "raw/0.tar", pairs(2))
    repo.put("data", path=str(repo.outside / "raw"))
    section, values, code, message = FAULTS[fault]
    repo.put(section, **values)
    said = run(repo.folder, "dvc", "repro", check=False)
    assert said.returncode != 0
    assert f"cliprd: error: {message}" in said.stderr
    assert "Traceback" not in said.stderr
    assert f"exited with {code}" in said.stderr
    assert not (repo.folder / "work/shards").exists()


def test_status_and_a_stage_of_its_own(repo):
    """`dvc status` knows what `inputs` has found last; it always names the stage that looks."""
    raw = repo.outside / "raw"
    write_tar(raw / "0.tar", pairs(2))
    repo.put("data", path=str(raw))
    repo.ran()
    assert json.loads(run(repo.folder, "dvc", "status", "--json").stdout) == {"inputs": ["always changed"]}
    write_tar(raw / "0.tar", pairs(2, start=4))
    assert stages_run(run(repo.folder, "dvc", "repro", "inputs").stdout) == NOTHING
    status = json.loads(run(repo.folder, "dvc", "status", "--json").stdout)
    assert status["prepare"] == [{"changed deps": {"work/inputs/data.json": "modified"}}]
    assert set(status) == {"inputs", "prepare"}


def test_a_dry_retraining_names_the_stages_and_writes_nothing(repo, monkeypatch):
    from cliprd import params
    from cliprd.retrain import dvc
    from cliprd.retrain.proposal import Plan

    write_tar(repo.outside / "raw/0.tar", pairs(2))
    repo.params["retrain"] = {"method": "baseline"}
    repo.put("data", path=str(repo.outside / "raw"))
    repo.ran()
    monkeypatch.chdir(repo.folder)
    monkeypatch.setenv("PATH", environment()["PATH"])
    runner = dvc.Repository(params.load(repo.folder / "params.yaml"))
    nothing_known = Plan(None, (), "", "", True, "")
    assert runner.would_run(nothing_known) == []
    before = (repo.folder / "work/inputs/benchmark.json").read_bytes()
    write_task(repo.outside / "tasks/one", seed=5)
    assert set(runner.would_run(nothing_known)) == {"benchmark-teacher", f"benchmark@{STUDENT}"}
    assert (repo.folder / "work/inputs/benchmark.json").read_bytes() == before
    write_tar(repo.outside / "raw/0.tar", pairs(2, start=20))
    wanted = {"prepare", "teacher", "benchmark-teacher", *OF_STUDENT} - {"compare"}
    assert set(runner.would_run(nothing_known)) == wanted


def test_one_raw_shard_more_packs_only_itself(repo):
    raw = repo.outside / "raw"
    for number in range(2):
        write_tar(raw / f"{number:05d}.tar", pairs(2, start=2 * number))
    repo.put("data", path=f"{raw}/*.tar")
    repo.ran()
    write_tar(raw / "00002.tar", pairs(2, start=4))
    said = run(repo.folder, "dvc", "repro", "prepare")
    assert "inputs: data changed" in said.stdout
    assert "prepare: 2 sources kept as they were, 1 packed" in said.stderr


def test_data_that_dvc_brings(repo):
    """They are no part of the graph by their address, which may be a pattern: `inputs` names what it waits for."""
    data = repo.folder / "data/train"
    write_tar(data / "0.tar", pairs(2))
    repo.put("data", path="data/train/*.tar")
    run(repo.folder, "dvc", "add", "-q", "data/train")
    run(repo.folder, "dvc", "remote", "add", "-q", "-d", "store", str(repo.outside / "store"))
    pipeline = yaml.safe_load((repo.folder / "dvc.yaml").read_text())
    pipeline["stages"]["inputs"]["deps"] = ["data/train"]
    (repo.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    repo.ran()
    run(repo.folder, "dvc", "push")
    shutil.rmtree(data)
    shutil.rmtree(repo.folder / ".dvc/cache")
    assert stages_run(run(repo.folder, "dvc", "repro", "--pull").stdout) == NOTHING
    with tarfile.open(data / "0.tar") as tar:
        assert len(tar.getnames()) == 6
