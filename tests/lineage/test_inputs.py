"""What lies outside, by content: which part of it each change is a change of; here and in a real S3."""

import os

import boto3
import pytest

from cliprd import params
from cliprd.errors import InputError
from cliprd.lineage import inputs
from cliprd.stages import prepare
from cliprd.storage import s3
from tests import s3_server
from tests.data.pictures import pairs, png, write_tar
from tests.integration.test_dvc_inputs import write_task

NOTHING, DATA, TASKS, TEACHER = set(), {"data"}, {"benchmark"}, {"teacher"}


class Outside:
    """Data, tasks and weights in `outside`, and the parameters that name them."""

    def __init__(self, outside):
        self.outside = outside
        self.tree = {
            "data": {"max_bad_fraction": 1.0},
            "teacher": {"name": f"open_clip:ViT-T-16:{outside}/teacher.pt"},
            "benchmark": {"tasks": str(outside / "tasks")},
        }
        outside.mkdir()
        (outside / "teacher.pt").write_bytes(b"weights")
        write_task(outside / "tasks/one")

    def put(self, section, **values):
        self.tree[section] |= values

    def look(self):
        tree = params.validate(self.tree, where="test")
        found = {name: inputs.encode(part) for name, part in inputs.look(tree).items()}
        assert tuple(found) == inputs.PARTS
        return found


@pytest.fixture
def repo(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    return Outside(tmp_path / "outside")


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
    """Each step changes the parts that it should, once; the rest stays as it was, to the byte."""
    before = repo.look()
    for name, (act, expected) in steps.items():
        act()
        after = repo.look()
        assert {part for part in after if after[part] != before[part]} == expected, name
        before = after
    assert repo.look() == before


@pytest.mark.parametrize("address", ["", "/", "/{00000..00001}.tar", "/*.tar", "/{00000,00001}.tar", "/0000[01].tar"])
def test_a_changed_tar_changes_its_fingerprint_only(repo, address):
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


def test_a_changed_cell_or_image_changes_the_tables_fingerprint(repo):
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


def test_a_changed_file_changes_the_folders_fingerprint(repo):
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


def test_changed_tasks_and_weights_change_their_fingerprints(repo):
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


@pytest.mark.parametrize("weights", ["/nowhere/t.pt", "sub/t", "t.safetensors"])
def test_weights_that_are_missing_are_an_error(repo, weights):
    write_tar(repo.outside / "raw/0.tar", pairs(2))
    repo.put("data", path=str(repo.outside / "raw"))
    repo.put("teacher", name=f"open_clip:ViT-T-16:{weights}")
    with pytest.raises(InputError, match=f"weights {weights} do not exist"):
        repo.look()


@pytest.mark.parametrize("name", ["aligned", "open_clip:RN50:openai"])
def test_a_name_alone_identifies_weights(repo, name, monkeypatch):
    write_tar(repo.outside / "raw/0.tar", pairs(2))
    repo.put("data", path=str(repo.outside / "raw"))
    repo.put("teacher", name=name)
    monkeypatch.chdir(repo.outside)
    (repo.outside / "aligned").write_text("a user's own file")
    assert repo.look()["teacher"] == b"{}\n"


def test_a_trailing_slash_does_not_change_fingerprints(repo):
    folder = repo.outside / "x"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    (folder / "a.txt").write_text("a")
    repo.put("data", kind="folder", path=str(folder))
    plain = repo.look()
    repo.put("data", path=f"{folder}/")
    assert repo.look() == plain


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s3"
    (folder / "bucket").mkdir(parents=True)
    with s3_server.running(folder) as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        s3.client.cache_clear()
        yield boto3.client("s3")
        s3.client.cache_clear()


def upload(store, key, content):
    store.put_object(Bucket="bucket", Key=key, Body=content)


def tar_bytes(folder, start):
    return write_tar(folder / "made.tar", pairs(2, start=start)).read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize("address", ["", "/{0..1}.tar", "/*.tar"])
def test_a_changed_tar_in_s3_changes_its_fingerprint_only(repo, store, address):
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


@pytest.mark.integration
@pytest.mark.parametrize("here", [True, False], ids=["table here", "table in s3"])
def test_a_changed_table_or_image_in_s3_changes_the_fingerprint(repo, store, here):
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


@pytest.mark.integration
def test_changed_folder_tasks_and_weights_in_s3_change_the_fingerprints(repo, store):
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


@pytest.mark.parametrize("kind", ["webdataset", "csv", "folder"])
def test_prepare_uses_the_same_fingerprints(repo, kind):
    """It says of each source what DVC was told; called again without DVC, it sees the change by itself."""
    folder = repo.outside / "x"
    write_tar(folder / "x.tar", pairs(2))
    (folder / "a.png").write_bytes(png(0))
    (folder / "a.txt").write_text("a")
    (folder / "t.csv").write_text("filepath\ttitle\na.png\ta\n")
    repo.put("data", kind=kind, path=str(folder / "t.csv" if kind == "csv" else folder))
    tree = params.validate(repo.tree, where="test")
    seen = []
    for _ in range(2):
        made = prepare.run(tree, {}, repo.outside / "shards")
        told = [{name: part[name] for name in ("name", "fingerprint")} for part in made.facts["sources"]]
        assert told == inputs.look(tree)["data"]
        seen.append(told)
        write_tar(folder / "x.tar", pairs(2, start=5))
        (folder / "a.png").write_bytes(png(5))
    assert seen[0] != seen[1]


def test_only_what_changed_is_written(repo, tmp_path):
    write_tar(repo.outside / "x/0.tar", pairs(1))
    repo.put("data", path=str(repo.outside / "x"))
    tree = params.validate(repo.tree, where="test")
    names = [*inputs.PARTS, *(f"code/{stage}" for stage in inputs.STAGES)]

    def times():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "i").rglob("*.json")}

    assert inputs.write(tree, tmp_path / "i") == names
    before = times()
    assert set(before) == {tmp_path / "i" / f"{name}.json" for name in names}
    assert inputs.write(tree, tmp_path / "i") == []
    assert times() == before
    assert str(tmp_path) not in (tmp_path / "i/data.json").read_text()  # elsewhere the same data are the same
