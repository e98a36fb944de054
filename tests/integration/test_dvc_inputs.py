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
from tests.integration.pipeline import ROOT, run

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
    "distill": ["work/shards/manifest.json", "work/cache/manifest.json"],
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


def touched(path):
    os.utime(path)


def same_size_and_time(path):
    """Another byte, all that a user can set as before."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def check(repo, steps):
    """`dvc repro` runs everything, then nothing, then after each step what the step changes, then nothing."""
    assert {"prepare", *TEACHER} <= repo.ran()
    assert repo.ran() == NOTHING
    for name, (act, expected) in steps.items():
        act()
        assert repo.ran() == expected, name
    assert repo.ran() == NOTHING


@pytest.mark.parametrize("address", ["", "/", "/{00000..00001}.tar", "/*.tar", "/{00000,00001}.tar", "/0000[01].tar"])
def test_webdataset(repo, address):
    raw = repo.outside / "raw"
    for number in range(2):
        write_tar(raw / f"{number:05d}.tar", pairs(2, start=2 * number))
    repo.put("data", path=f"{raw}{address}")
    grows = address in ("", "/", "/*.tar")
    check(
        repo,
        {
            "touched": (lambda: touched(raw / "00000.tar"), NOTHING),
            "changed": (lambda: write_tar(raw / "00000.tar", pairs(2, start=20)), DATA),
            "one more": (lambda: write_tar(raw / "00002.tar", pairs(2, start=4)), DATA if grows else NOTHING),
            "no data": (lambda: (raw / "00000_stats.json").write_text("{}"), NOTHING),
        },
    )


def test_csv(repo):
    """Images beside the table, at an absolute path outside, behind a link, and one that is missing."""
    folder, far = repo.outside / "csv", repo.outside / "far"
    for number, place in enumerate((folder / "img/0.png", folder / "img/1.png", far / "2.png", far / "3.png")):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(number))
    (folder / "img/3.png").symlink_to(far / "3.png")

    def table(*captions, comment="x", name="img/1.png"):
        rows = zip(("img/0.png", name, f"{far}/2.png", "img/3.png", "img/late.png"), captions, strict=True)
        lines = [f"{place}\t{caption}\t{comment}" for place, caption in rows]
        (folder / "t.csv").write_text("\n".join(["filepath\ttitle\tcomment", *lines]) + "\n")

    captions = ["one", "two", "three", "four", "five"]
    table(*captions)
    repo.put("data", kind="csv", path=str(folder / "t.csv"))
    check(
        repo,
        {
            "an image": (lambda: (folder / "img/0.png").write_bytes(png(10)), DATA),
            "one far away": (lambda: (far / "2.png").write_bytes(png(11)), DATA),
            "one behind a link": (lambda: (far / "3.png").write_bytes(png(12)), DATA),
            "its size and time kept": (lambda: same_size_and_time(folder / "img/1.png"), DATA),
            "a comment": (lambda: table(*captions, comment="y"), NOTHING),
            "touched": (lambda: touched(folder / "img/0.png"), NOTHING),
            "an image that is not in the table": (lambda: (folder / "img/9.png").write_bytes(png(9)), NOTHING),
            "one that was missing": (lambda: (folder / "img/late.png").write_bytes(png(13)), DATA),
            "one that is gone": (lambda: (folder / "img/0.png").unlink(), DATA),
            "a caption": (lambda: table("uno", *captions[1:]), DATA),
            "renamed": (
                lambda: (
                    (folder / "img/1.png").rename(folder / "img/one.png"),
                    table("uno", *captions[1:], name="img/one.png"),
                ),
                DATA,
            ),
        },
    )


def test_folder(repo):
    folder = repo.outside / "folder"
    for number in range(2):
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / f"deep/{number}.png").write_bytes(png(number))
        (folder / f"deep/{number}.txt").write_text("caption")
    repo.put("data", kind="folder", path=str(folder))
    check(
        repo,
        {
            "an image": (lambda: (folder / "deep/0.png").write_bytes(png(10)), DATA),
            "its size and time kept": (lambda: same_size_and_time(folder / "deep/0.png"), DATA),
            "a caption": (lambda: (folder / "deep/0.txt").write_text("Caption"), DATA),
            "touched": (lambda: touched(folder / "deep/0.txt"), NOTHING),
            "what is no pair": (lambda: (folder / "notes.md").write_text("x"), NOTHING),
            "renamed": (
                lambda: [(folder / f"deep/1.{end}").rename(folder / f"deep/one.{end}") for end in ("png", "txt")],
                DATA,
            ),
            "removed": (lambda: [(folder / f"deep/one.{end}").unlink() for end in ("png", "txt")], DATA),
        },
    )


def test_tasks_and_teacher(repo):
    raw, tasks = repo.outside / "raw", repo.outside / "tasks"
    write_tar(raw / "0.tar", pairs(2))
    repo.put("data", path=str(raw))
    repo.put("benchmark", names=["one"])
    check(
        repo,
        {
            "an image of a task": (lambda: write_task(tasks / "one", seed=5), TASKS),
            "its prompts": (lambda: (tasks / "one/zeroshot_classification_templates.txt").write_text("the {c}"), TASKS),
            "touched": (lambda: touched(tasks / "one/test/0.tar"), NOTHING),
            "a task that is not named": (lambda: write_task(tasks / "two"), NOTHING),
            "weights": (lambda: (repo.outside / "teacher.pt").write_bytes(b"weightS"), TEACHER),
            "weights, their time kept": (lambda: same_size_and_time(repo.outside / "teacher.pt"), TEACHER),
            "touched weights": (lambda: touched(repo.outside / "teacher.pt"), NOTHING),
        },
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s3"
    (folder / "bucket").mkdir(parents=True)
    with s3_server.running(folder) as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        import boto3

        yield boto3.client("s3")


def upload(store, key, content):
    store.put_object(Bucket="bucket", Key=key, Body=content)


def tar_bytes(folder, start):
    return write_tar(folder / "made.tar", pairs(2, start=start)).read_bytes()


@pytest.mark.parametrize("address", ["", "/{0..1}.tar", "/*.tar"])
def test_webdataset_in_s3(repo, store, address):
    prefix = f"web{len(address)}"
    for number in range(2):
        upload(store, f"{prefix}/{number}.tar", tar_bytes(repo.outside, 2 * number))
    repo.put("data", path=f"s3://bucket/{prefix}{address}")
    check(
        repo,
        {
            "changed": (lambda: upload(store, f"{prefix}/0.tar", tar_bytes(repo.outside, 20)), DATA),
            "the same again": (lambda: upload(store, f"{prefix}/0.tar", tar_bytes(repo.outside, 20)), NOTHING),
            "one more": (
                lambda: upload(store, f"{prefix}/2.tar", tar_bytes(repo.outside, 30)),
                NOTHING if "0..1" in address else DATA,
            ),
        },
    )


@pytest.mark.parametrize("here", [True, False], ids=["table here", "table in s3"])
def test_csv_in_s3(repo, store, here):
    prefix = f"csv{here}"
    for number in range(3):
        upload(store, f"{prefix}/img/{number}.png", png(number))
    rows = [f"s3://bucket/{prefix}/img/0.png\tone", f"s3://bucket/{prefix}/img/1.png\ttwo", "img/late.png\tthree"]

    def table(comment):
        text = "\n".join(["filepath\ttitle\tc", *(f"{row}\t{comment}" for row in rows)]) + "\n"
        (repo.outside / "t.csv").write_text(text)
        upload(store, f"{prefix}/t.csv", text.encode())

    table("x")
    repo.put("data", kind="csv", path=str(repo.outside / "t.csv") if here else f"s3://bucket/{prefix}/t.csv")
    check(
        repo,
        {
            "an image": (lambda: upload(store, f"{prefix}/img/0.png", png(10)), DATA),
            "another": (lambda: upload(store, f"{prefix}/img/2.png", png(10)), NOTHING),
            "a comment": (lambda: table("y"), NOTHING),
            "one that was missing": (
                lambda: upload(store, f"{prefix}/img/late.png", png(11)),
                NOTHING if here else DATA,
            ),
        },
    )


def test_folder_tasks_and_teacher_in_s3(repo, store):
    for name, content in (("0.png", png(0)), ("0.txt", b"caption")):
        upload(store, f"folder/deep/{name}", content)
    upload(store, "teacher.pt", b"weights")

    def task(seed):
        folder = repo.outside / "made"
        write_task(folder, seed)
        for path in folder.rglob("*.*"):
            upload(store, f"tasks/one/{path.relative_to(folder).as_posix()}", path.read_bytes())

    task(0)
    repo.put("data", kind="folder", path="s3://bucket/folder")
    repo.put("teacher", name="open_clip:ViT-T-16:s3://bucket/teacher.pt")
    repo.put("benchmark", tasks="s3://bucket/tasks")
    check(
        repo,
        {
            "a caption": (lambda: upload(store, "folder/deep/0.txt", b"Caption"), DATA),
            "an image": (lambda: upload(store, "folder/deep/0.png", png(5)), DATA),
            "a task": (lambda: task(5), TASKS),
            "weights": (lambda: upload(store, "teacher.pt", b"weightS"), TEACHER),
        },
    )


FAULTS = {
    "data": ("data", {"path": "/nowhere/{0..1}.tar"}, 3, "/nowhere/0.tar does not exist."),
    "a glob": ("data", {"path": "/nowhere/*.tar"}, 3, "/nowhere/*.tar holds no file that ends in .tar"),
    "tasks": ("benchmark", {"tasks": "/nowhere"}, 3, "benchmark.tasks: folder /nowhere does not exist."),
    "a task": ("benchmark", {"names": ["tow"]}, 2, "benchmark.names: no task 'tow'"),
    "weights in s3": ("teacher", {"name": "open_clip:ViT-T-16:s3://bucket/none.pt"}, 3, "s3://bucket/none.pt does not"),
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
    run(repo.folder, "dvc", "add", "-q", "data/train")
    run(repo.folder, "dvc", "remote", "add", "-q", "-d", "store", str(repo.outside / "store"))
    pipeline = yaml.safe_load((repo.folder / "dvc.yaml").read_text())
    pipeline["stages"]["inputs"]["deps"] = ["data/train"]
    (repo.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    repo.put("data", path="data/train/*.tar")
    repo.ran()
    run(repo.folder, "dvc", "push")
    shutil.rmtree(data)
    shutil.rmtree(repo.folder / ".dvc/cache")
    assert stages_run(run(repo.folder, "dvc", "repro", "--pull").stdout) == NOTHING
    with tarfile.open(data / "0.tar") as tar:
        assert len(tar.getnames()) == 4
