"""Task folders: what is read, and that every kind of damage is named."""

import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliprd.benchmark.task_set import load_tasks
from cliprd.benchmark.tasks import load_task
from cliprd.data.images import decode
from cliprd.errors import InputError, ParamsError
from tests.benchmark.tools import classification, picture, retrieval, write_shards, write_tar


def test_reads_both_kinds(tmp_path):
    classification(tmp_path, n=25, tars=3)
    retrieval(tmp_path)
    captions, flags = load_tasks(tmp_path).tasks
    assert (flags.name, flags.kind, len(flags), flags.tars[2].name) == ("flags", "classification", 25, "2.tar")
    assert flags.labels.tolist() == np.random.default_rng(0).integers(0, 6, 25).tolist()
    assert flags.classnames[1] == "colour number 1"
    assert flags.templates == ("a photo of a {c}.", "the {c}")
    assert (captions.kind, captions.captions[3], captions.captions[2]) == (
        "retrieval", ("a thing called 3", "number 21 on a wall"), ("a thing called 2",),
    )  # fmt: skip
    assert [number for number, _ in flags.images()] == list(range(25))
    assert dict(flags.images({3, 20})) == {3: picture(3, "png"), 20: picture(20, "jpg")}


def test_agrees_with_webdataset_as_clip_benchmark_reads_it(tmp_path):
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    for folder in (classification(tmp_path, tars=2), retrieval(tmp_path, tars=2)):
        task = load_task(folder)
        theirs = list(builder.build_wds_dataset(task.name, lambda image: image, data_dir=str(folder)))
        assert len(theirs) == len(task)
        for (_, data), (image, _) in zip(task.images(), theirs, strict=True):
            assert np.array_equal(np.asarray(decode(data)), np.asarray(image))
        if task.kind == "retrieval":
            assert [tuple(captions) for _, captions in theirs] == list(task.captions)
        else:
            assert [label for _, label in theirs] == task.labels.tolist()


def test_links_and_chosen_names(tmp_path):
    classification(tmp_path / "elsewhere", "far")
    root = tmp_path / "tasks"
    retrieval(root, "near")
    (root / "far").symlink_to("../elsewhere/far")
    assert [task.name for task in load_tasks(root).tasks] == ["far", "near"]
    assert [task.name for task in load_tasks(root, ("near", "far", "near")).tasks] == ["near", "far"]
    assert load_tasks(root, ("far",)).tasks[0].fingerprint == load_task(tmp_path / "elsewhere" / "far").fingerprint
    with pytest.raises(ParamsError, match=r"no task 'naer'.*Did you mean 'near'.*far, near"):
        load_tasks(root, ("naer",))
    (root / "gone").symlink_to("nowhere")
    with pytest.raises(InputError, match="gone is a link to nothing"):
        load_tasks(root)


def test_the_fingerprint_follows_every_file(tmp_path):
    folder = classification(tmp_path)
    before = load_task(folder).fingerprint
    for name in ("classnames.txt", "zeroshot_classification_templates.txt"):
        (folder / name).write_text((folder / name).read_text().replace("colour", "color").replace("photo", "foto"))
        assert load_task(folder).fingerprint != before
        before = load_task(folder).fingerprint
    data = bytearray((folder / "test" / "1.tar").read_bytes())
    data[600] ^= 1  # inside the first picture
    (folder / "test" / "1.tar").write_bytes(bytes(data))
    assert load_task(folder).fingerprint != before


def test_dots_folders_cases_and_strangers_in_a_tar(tmp_path):
    folder = classification(tmp_path)
    files = [
        ("dir/a.b.PNG", picture(1)), ("dir/a.cls", b"1"), ("dir/a.json", b"{}"), ("__meta__.cls", b"9"),
        ("dir/b.tiff", picture(2, "tiff")), ("dir/b.cls", b" 2\n"),
    ]  # fmt: skip
    write_tar(folder / "test" / "0.tar", [("dir/a.png", files[0][1]), *files[1:]])
    write_tar(folder / "test" / "1.tar", [("c.gif", picture(3, "gif")), ("c.cls", b"0")])
    task = load_task(folder)
    assert task.keys == ("dir/a", "dir/b", "c")
    assert task.labels.tolist() == [1, 2, 0]
    assert [Image.open(io.BytesIO(data)).format for _, data in task.images()] == ["PNG", "TIFF", "GIF"]


def damage_truncated(folder):
    path = folder / "test" / "1.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def damage_no_end_mark(folder):
    """Cut between two members: the tar reads without complaint, but is short."""
    path = folder / "test" / "1.tar"
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[6].offset
    path.write_bytes(path.read_bytes()[:cut])


def damage_header(folder):
    path = folder / "test" / "1.tar"
    with tarfile.open(path) as tar:
        at = tar.getmembers()[4].offset
    data = bytearray(path.read_bytes())
    data[at] ^= 0x20
    path.write_bytes(bytes(data))


def damage_garbage(folder):
    (folder / "test" / "1.tar").write_bytes(b"no tar at all" * 99)


def damage_sparse(folder):
    """Its bytes do not lie in the tar as they are."""
    with (folder / "holes.png").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x")
    (folder / "holes.cls").write_text("0")
    tar = ["tar", "--create", "--sparse", "--format=gnu", "--file=test/1.tar", "holes.png", "holes.cls"]
    subprocess.run(tar, cwd=folder, check=True)


@pytest.mark.parametrize("damage", [damage_truncated, damage_no_end_mark, damage_header, damage_garbage, damage_sparse])
def test_a_damaged_tar_is_named(tmp_path, damage):
    folder = classification(tmp_path)
    damage(folder)
    with pytest.raises(InputError, match=r"test/1\.tar is damaged"):
        load_tasks(tmp_path)


def write(name, text):
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def remove(name):
    return lambda folder: (folder / name).unlink()


def tar(*files):
    def change(folder):
        write_tar(folder / "test" / "0.tar", files)
        (folder / "test" / "1.tar").unlink()
        (folder / "test" / "nshards.txt").write_text("1")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("classnames.txt"), r"classnames\.txt is missing"),
        (write("classnames.txt", "\n\n\n\n\n\n"), r"classnames\.txt is empty"),
        (write("classnames.txt", "one\ntwo\n"), r"'s\d+\.cls' says class [2-5], but classnames\.txt has 2 \(0 to 1\)"),
        (write("classnames.txt", b"\xff\xfe"), r"classnames\.txt is not UTF-8"),
        (remove("zeroshot_classification_templates.txt"), r"templates\.txt is missing"),
        (write("zeroshot_classification_templates.txt", "a photo\n"), r"'a photo' has no \{c\}"),
        (write("zeroshot_classification_templates.txt", "\n"), r"templates\.txt is empty"),
        (write("dataset_type.txt", "multilabel"), r"'s0000' has no \.npy file \(it has image, cls\)"),
        (write("dataset_type.txt", "retreival\n"), r"holds 'retreival'\. Did you mean 'retrieval'"),
        (write("dataset_type.txt", "multi-label"), r"holds 'multi-label'\. Did you mean 'multilabel'"),
        (write("dataset_type.txt", "\n"), r"dataset_type\.txt is empty"),
        (write("zeroshot_classification_templates.txt", "a photo of a {}.\n"), r"'a photo of a \{\}\.' has no \{c\}"),
        (write("test/nshards.txt", "1\n"), r"says there are 1 tars, but there is 1\.tar too"),
        (remove("test/nshards.txt"), r"nshards\.txt is missing"),
        (write("test/nshards.txt", "two"), r"nshards\.txt holds 'two'"),
        (write("test/nshards.txt", "3"), r"2\.tar is missing; .* says there are 3"),
        (tar(), "has no images"),
        (tar(("a.png", b"x"), ("a.index", b"1")), r"sample 'a' has no \.cls file \(it has image, index\)"),
        (tar(("a.png", b"x"), ("a.cls", b"1.0")), "holds b'1.0', not a class number"),
        (tar(("a.png", b"x"), ("a.cls", b"1_0")), "not a class number"),
        (tar(("a.cls", b"1")), "sample 'a' has no image"),
        (tar(("a.png", b"x"), ("a.cls", b"-1")), "says class -1"),
        (tar(("a.png", b"x"), ("a.cls", b"cat")), "holds b'cat', not a class number"),
        (tar(("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")), "'a' has two images"),
        (tar(("a.png", b"x"), ("a.cls", b"1"), ("b.png", b""), ("b.cls", b"1"), ("a.txt", b"1")), "do not stand"),
    ],
)
def test_wrong_classification_tasks_are_named(tmp_path, change, message):
    change(classification(tmp_path))
    with pytest.raises(InputError, match=message):
        load_tasks(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [(b" \n\n", r"'k0\.txt' has no caption"), (b"\xff", "captions of 'k0' are not UTF-8")]
)
def test_wrong_captions_are_named(tmp_path, text, message):
    folder = retrieval(tmp_path)
    write_shards(folder, [[("k0.png", picture(0)), ("k0.txt", text)]], 1)
    with pytest.raises(InputError, match=message):
        load_tasks(tmp_path)


def test_wrong_roots_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_tasks(tmp_path / "none")
    with pytest.raises(InputError, match="holds no task folders"):
        load_tasks(tmp_path)
    folder = classification(tmp_path)
    with pytest.raises(InputError, match="is itself a task"):
        load_tasks(folder)
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match=r"notes: .*nshards\.txt is missing"):
        load_tasks(tmp_path)


def test_a_tar_that_changes_between_two_reads_is_noticed(tmp_path):
    folder = classification(tmp_path, tars=1)
    task = load_task(folder)
    classification(tmp_path, n=3, tars=1, labels=[0, 1, 2])
    write_tar(folder / "test" / "0.tar", [("zzz.png", picture(0)), ("zzz.cls", b"0")])
    with pytest.raises(InputError, match="changed while it was read"):
        list(task.images())


def test_the_demo_tasks_are_whole():
    root = Path(__file__).parents[2] / "data" / "demo" / "benchmark"
    if not root.is_dir():
        pytest.skip("no demo data in this checkout")
    tasks = load_tasks(root).tasks
    assert len(tasks) >= 4
    assert {task.kind for task in tasks} == {"classification", "retrieval"}
    for task in tasks:
        number, data = next(iter(task.images({len(task) - 1})))
        assert number == len(task) - 1
        assert decode(data).mode == "RGB"
