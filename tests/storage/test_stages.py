"""Whole stages with inputs and outputs in S3: the same bytes as on a disk, whatever the network and the machine do."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cliprd import cli, storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import write_pointer
from cliprd.benchmark.task_folders import versions
from cliprd.data.shards import ShardSet
from cliprd.distill.loader import Loader
from cliprd.errors import InputError, ParamsError
from cliprd.kubeflow import step, ui
from cliprd.params import validate
from cliprd.stages import cache, distill, prepare
from cliprd.storage import downloads as storage_cache
from cliprd.teacher_cache import TeacherCache
from tests.artifact.test_folder import tree
from tests.distill import rooms as distill_rooms
from tests.teacher_cache import rooms as cache_rooms

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """`shards`, `teacher` and `cache`, made on a disk."""
    folder = tmp_path_factory.mktemp("room")
    params = cache_rooms.make(folder)
    cache.run(params, {"shards": folder / "shards", "teacher": folder / "teacher"}, folder / "cache")
    return folder, params


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`shards`, `cache` and `student`, made on a disk."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("rooms")
    distill_rooms.build(folder)
    inputs = {"shards": folder / "shards", "cache": folder / "cache"}
    distill.run(distill_rooms.make_params(folder), inputs, folder / "student")
    yield folder
    torch.set_num_threads(before)


@pytest.fixture
def url(bucket, request):
    return f"s3://pairs/stages/{request.node.name.translate(str.maketrans('[]', '__'))}"


def put(folder, url):
    for name, data in tree(folder).items():
        path = folder / name
        assert path.read_bytes() == data
        storage.upload(path, storage.join(url, name))
    return url


def assert_same(url, folder):
    """Every file, and the manifest but for where its inputs were read."""
    got = {name: storage.read_bytes(storage.join(url, name)) for name in storage.list_folder(url)}
    expected = tree(folder)
    assert {n: d for n, d in got.items() if not n.startswith("volatile/")} == {
        n: d for n, d in expected.items() if not n.startswith("volatile/")
    }


def test_prepare_and_cache_through_a_bad_network(room, url, faults, scratch, monkeypatch):
    folder, params = room
    source = put(folder / "source", f"{url}/source")
    put(folder / "teacher", f"{url}/teacher")
    faults.plan(40, rate=0.3)
    data = params.data.model_copy(update={"path": source})
    made = prepare.run(params.model_copy(update={"data": data}), {}, f"{url}/shards-s3")
    assert made.files == manifest.read(folder / "shards").files
    monkeypatch.setenv("CLIPRD_CACHE_BYTES", "30000")  # not all shards at once
    put(folder / "shards", f"{url}/shards")
    inputs = {"shards": f"{url}/shards", "teacher": f"{url}/teacher"}
    cache.run(params, inputs, f"{url}/cache")
    seen = sum(faults.seen.values())
    faults.plan(0)
    assert seen > 10
    assert_same(f"{url}/cache", folder / "cache")
    assert sum(path.stat().st_size for path in (scratch / "files").iterdir()) < 60_000
    shards = ShardSet.open(f"{url}/shards")
    opened = TeacherCache.open(f"{url}/cache", shards, params.augmentation)
    here = ShardSet.open(folder / "shards")
    known = TeacherCache.open(folder / "cache", here, params.augmentation)
    for shard in shards.shards:
        assert list(shards.read(shard)) == list(here.read(shard))
        for a, b in zip(opened.read(shard), known.read(shard), strict=True):
            assert (a == b).all()


def test_a_flipped_byte_in_a_streamed_file_is_named(room, url, bucket):
    folder, params = room
    put(folder / "shards", f"{url}/shards")
    key = storage.paths.split(f"{url}/shards/0-00002.tar")[1]
    data = bytearray((folder / "shards/0-00002.tar").read_bytes())
    data[700] ^= 1
    bucket.put_object(Bucket="pairs", Key=key, Body=bytes(data))
    with pytest.raises(InputError, match=r"shards/0-00002\.tar is damaged: sha256"):
        cache.run(params, {"shards": f"{url}/shards", "teacher": folder / "teacher"}, f"{url}/cache")
    assert "manifest.json" not in storage.list_folder(f"{url}/cache")


def test_pointers_and_the_command_line(room, url, tmp_path, capsys):
    folder, params = room
    import yaml

    for name in ("shards", "teacher"):
        write_pointer(tmp_path / name, put(folder / name, f"{url}/{name}"))
    sections = params.model_dump(mode="json", include={"cache", "augmentation"})
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(sections))
    arguments = ["cache", "--params", str(tmp_path / "p.yaml"), "--shards", str(tmp_path / "shards")]
    arguments += ["--teacher", f"{url}/teacher/", "--output", f"{url}/cache"]
    assert cli.main(arguments) == 0
    assert f"{url}/cache is whole" in capsys.readouterr().out
    assert_same(f"{url}/cache", folder / "cache")
    inputs = {"shards": str(tmp_path / "shards"), "teacher": str(tmp_path / "teacher")}
    again = step.run("cache", sections, inputs, f"{url}/cache")
    assert again == manifest.read(folder / "cache")
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--output", "s3://"])
    assert "names no bucket" in capsys.readouterr().err


def test_benchmark_and_compare(url, tmp_path):
    from cliprd.stages import benchmark, compare
    from tests.benchmark.tools import classification
    from tests.report import folders
    from tests.stages.test_benchmark import distilled, settings

    classification(tmp_path / "tasks")
    model = distilled(tmp_path / "teacher", seed=1)
    local = benchmark.run(settings(tmp_path / "tasks", speed=False), {"model": model}, tmp_path / "scores")
    tree_there = settings(put(tmp_path / "tasks", f"{url}/tasks"), speed=False, names=["flags"])
    inputs = {"model": put(model, f"{url}/teacher")}
    assert benchmark.run(tree_there, inputs, f"{url}/scores").files == local.files
    inputs["reference"] = f"{url}/scores"
    benchmark.run(tree_there, inputs, f"{url}/fidelity")
    assert ui.scores(f"{url}/fidelity")["flags fidelity image_cosine"] == pytest.approx(100, abs=0.01)
    assert ui.confusion(f"{url}/scores") == ui.confusion(str(tmp_path / "scores"))

    tasks = [task for task in folders.tasks() if task.name == "photos"]
    grid = folders.write_grid(tmp_path / "grid", ["clip_kd"], [0], only=tasks)
    params = grid_params()
    local = compare.run(params, grid, tmp_path / "compared")
    there = {name: put(folder, f"{url}/grid/{name}") for name, folder in grid.items()}
    assert compare.run(params, there, f"{url}/compared").files == local.files
    with pytest.raises(InputError, match=r"students/clip_kd-1 does not exist"):
        compare.run(grid_params(seeds=(0, 1)), there, f"{url}/compared")
    for run in ("students/clip_kd-0", "benchmarks/clip_kd-0", "benchmarks/teacher"):
        write_pointer(tmp_path / "pointers" / run, f"{url}/grid/{run}")
    pointers = {name: tmp_path / "pointers" / name for name in grid}
    made = compare.run(params, pointers, f"{url}/report")
    assert made.files == local.files
    assert set(ui.means(f"{url}/report")) == {"clip_kd", "teacher"}


def grid_params(seeds=(0,)):

    ablation = {"methods": ["clip_kd"], "seeds": list(seeds)}
    return validate({"ablation": ablation, "tracking": {"uri": ""}}, where="test")


def test_a_set_larger_than_the_disk_trains_from_a_bounded_cache(trained, url, scratch, monkeypatch):
    """Shards and teacher cache are four times what may lie here, and no window of samples holds them all; the student
    has the same bytes as from files of this machine."""
    monkeypatch.setitem(Loader.__init__.__kwdefaults__, "memory_budget", 0)  # streamed every epoch
    params = distill_rooms.make_params(trained, shuffle_buffer=20)
    local = {name: trained / name for name in ("shards", "cache")}
    expected = distill.run(params, local, trained / "streamed")
    remote = {name: put(folder, f"{url}/{name}") for name, folder in local.items()}
    data = [f["size"] for folder in local.values() for f in manifest.read(folder).files.values()]
    limit, held = 36_000, []
    assert sum(data) > 3.5 * limit
    monkeypatch.setenv("CLIPRD_CACHE_BYTES", str(limit))
    real = storage_cache.download

    def measured(*arguments, **options):
        real(*arguments, **options)
        held.append(sum(path.stat().st_size for path in (scratch / "files").iterdir()))

    monkeypatch.setattr(storage_cache, "download", measured)
    found = distill.run(params, remote, scratch.parent / "student")
    assert found.files == expected.files
    assert len(held) > 3 * 2 * 4  # fetched again in each of three epochs
    in_use = 2 * max(data)  # a shard and its embeddings, of the window that is read while the one before is served
    assert max(held) <= limit + in_use
    assert max(held) > limit / 2


@pytest.mark.parametrize("moment", ["record", "manifest"])
def test_a_killed_training_goes_on_on_another_machine(trained, url, tmp_path, monkeypatch, moment):
    """SIGKILL, and the rerun finds an empty disk: the student is the same to the last byte."""
    output = f"{url}/student"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.storage.child", str(trained), output, moment]
    killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = storage.list_folder(output)
    assert "manifest.json" not in left
    assert ".checkpoint/step-00000005.json" in left or moment == "manifest"
    shutil.rmtree(tmp_path / "scratch")
    inputs = {name: put(trained / name, f"{url}/{name}") for name in ("shards", "cache")}
    records = []
    distill.run(distill_rooms.make_params(trained), inputs, output, report=records.append)
    if moment == "record":
        assert records[0].step == 6
    assert_same(output, trained / "student")


def test_two_steps_that_do_the_same_at_once_make_it_once(trained, bucket, url, tmp_path):
    """The later one goes on, the earlier one waits for it; both end well, with the same student."""
    store = f"{url}/store"
    task = tmp_path / "task.py"
    task.write_text(
        "import sys\n"
        "from cliprd import params\nfrom cliprd.kubeflow import step\n"
        "from cliprd.artifact import folder\n"
        "from tests.distill import rooms\n"
        "from pathlib import Path\n"
        "import torch; torch.set_num_threads(1)\n"
        "wait = folder.await_finished\n"
        "step.await_finished = lambda url: wait(url, interval=0.1, still=60)\n"
        "room, out = Path(sys.argv[1]), sys.argv[2]\n"
        "tree = rooms.make_params(room, epochs=150).model_dump(mode='json')\n"
        "sections = {name: tree[name] for name in ('student', 'distill', 'augmentation')}\n"
        "sections['tracking'] = {'uri': ''}\n"
        "inputs = {'shards': str(room / 'shards'), 'cache': str(room / 'cache')}\n"
        f"made = step.run('distill', sections, inputs, out, store={store!r})\n"
        "print(made.fingerprint)\n"
    )

    def start(name):
        env = {**os.environ, "CLIPRD_SCRATCH": str(tmp_path / f"scratch-{name}")}
        command = [sys.executable, str(task), str(trained), str(tmp_path / name)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start("first")
    while not any(name.endswith("history.csv") for name in storage.list_folder(store)):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    second = start("second")
    ends = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], ends
    assert "another step has begun the same work" in ends[0][1]
    assert ends[0][0] == ends[1][0]
    assert manifest.verify(tmp_path / "first") == manifest.verify(tmp_path / "second")


def test_a_teachers_weights_may_lie_in_s3(bucket, url, tmp_path):
    """And are read again by every stage that loads it; what is not there is said by name."""
    from cliprd.models import config as configs
    from cliprd.models.load import load_encoder
    from cliprd.models.student import build_model
    from cliprd.stages import teacher

    model = build_model(configs.named("ViT-T-16"), where="test")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    storage.upload(tmp_path / "w.safetensors", f"{url}/w.safetensors")
    tree = validate({"teacher": {"name": f"open_clip:ViT-T-16:{url}/w.safetensors"}}, where="test")
    made = teacher.run(tree, {}, tmp_path / "teacher")
    assert load_encoder(tmp_path / "teacher", tree).weights_sha256 == made.facts["weights_sha256"]
    gone = validate({"teacher": {"name": f"open_clip:ViT-T-16:{url}/v.safetensors"}}, where="test")
    with pytest.raises(InputError, match=r"v\.safetensors"):
        teacher.run(gone, {}, tmp_path / "other")


def test_the_version_of_tasks_in_s3_changes_with_them_and_nothing_is_brought_here(bucket, url, scratch, tmp_path):
    def version(**settings):
        return versions(validate({"benchmark": {"tasks": url, **settings}}, where="test").benchmark)

    for name in ("a/test/0.tar", "b/test/0.tar"):
        (tmp_path / "file").write_bytes(name.encode())
        storage.upload(tmp_path / "file", f"{url}/{name}")
    first, only_a = version(), version(names=["a"])
    (tmp_path / "file").write_bytes(b"new")
    storage.upload(tmp_path / "file", f"{url}/b/test/0.tar")
    assert version() != first
    assert version(names=["a"]) == only_a
    assert not list(scratch.glob("trees/*"))
    with pytest.raises(ParamsError, match=r"no task 'c' in s3.*There are: a, b\."):
        version(names=["c"])


def test_a_set_in_s3_is_read_as_one_here(bucket, url, scratch, tmp_path):
    """Nested tasks, kinds that are left out, notes beside them; and no training data is brought here."""
    from cliprd.benchmark.task_set import fetch_tasks, load_tasks
    from tests.benchmark.tools import classification, retrieval

    classification(tmp_path / "tasks", "imagenet", n=6, tars=1)
    shutil.copytree(tmp_path / "tasks" / "imagenet" / "test", tmp_path / "tasks" / "imagenet" / "train")
    classification(tmp_path / "tasks" / "vtab", "dtd", n=6)
    (retrieval(tmp_path / "tasks" / "vtab", "words") / "dataset_type.txt").write_text("captioning")
    (tmp_path / "tasks" / "README.md").write_text("notes")
    (tmp_path / "tasks" / "vtab" / "._dtd").write_text("notes")
    (tmp_path / "tasks" / ".cache").mkdir()
    (tmp_path / "tasks" / ".cache" / "notes").write_text("notes")
    for path in sorted((tmp_path / "tasks").rglob("*")):
        if path.is_file():
            storage.upload(path, f"{url}/set/{path.relative_to(tmp_path / 'tasks')}")

    def section(**names):
        return validate({"benchmark": {"tasks": f"{url}/set", **names}}, where="test").benchmark

    here, there = load_tasks(tmp_path / "tasks"), fetch_tasks(section())
    assert [task.name for task in there.tasks] == ["imagenet", "vtab-dtd"]
    assert [task.fingerprint for task in there.tasks] == [task.fingerprint for task in here.tasks]
    assert there.left_out == here.left_out == {"vtab-words": "tasks of type 'captioning' are not supported"}
    assert not list(scratch.glob("trees/*/set/imagenet/train/*"))
    assert not list(scratch.glob("trees/*/set/README.md"))
    assert set(versions(section())) == {"imagenet", "vtab-dtd", "vtab-words"}
    before = versions(section(names=["vtab/dtd"]))
    storage.upload(tmp_path / "tasks" / "README.md", f"{url}/set/vtab/dtd/README.md")
    storage.upload(tmp_path / "tasks" / "README.md", f"{url}/set/vtab/dtd/train/0.tar")
    assert versions(section(names=["vtab-dtd"])) == before
    shutil.rmtree(scratch)
    assert [task.name for task in fetch_tasks(section(names=["vtab/dtd"])).tasks] == ["vtab-dtd"]
    assert not list(scratch.glob("trees/*/set/imagenet/test/*"))
    with pytest.raises(ParamsError, match=r"task 'vtab-words' of .*'captioning' are not supported"):
        fetch_tasks(section(names=["vtab-words"]))
    with pytest.raises(InputError, match=r"vtab/dtd is itself a task"):
        versions(validate({"benchmark": {"tasks": f"{url}/set/vtab/dtd"}}, where="test").benchmark)


def test_what_cannot_heal_ends_kubeflows_repetition_at_once(trained, bucket, url, tmp_path, monkeypatch, capsys):
    tree = distill_rooms.make_params(trained, batch_size=2, processes=3).model_dump(mode="json")
    sections = {name: tree[name] for name in ("student", "distill", "augmentation")} | {"tracking": {"uri": ""}}
    inputs = {"shards": str(trained / "shards"), "cache": str(trained / "cache")}
    trainings = []
    real = distill.run

    def counted(*arguments, **options):
        trainings.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(distill, "run", counted)

    def attempt(index: str) -> tuple[int, str]:
        monkeypatch.setenv("KFP_RETRY_INDEX", index)
        with pytest.raises(SystemExit) as end:
            step.run("distill", sections, inputs, str(tmp_path / "out"), store=url)
        return end.value.code, capsys.readouterr().err.splitlines()[-1]

    first = attempt("0")
    assert first[0] == 2
    assert "distill.batch_size = 2" in first[1]
    assert attempt("1") == first
    assert len(trainings) == 1
    assert attempt("0") == first  # another run begins anew
    assert len(trainings) == 2
