"""Task folders: what is read, and that every kind of damage is named."""

import bz2
import gzip
import io
import lzma
import shutil
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


def test_classification_and_retrieval_tasks_are_read(tmp_path):
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


def test_symbolic_links_and_selected_names(tmp_path):
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
    with pytest.raises(InputError, match="gone is a broken symbolic link"):
        load_tasks(root)


def test_every_file_changes_the_fingerprint(tmp_path):
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


def test_unusual_file_names_in_a_tar_are_handled(tmp_path):
    folder = classification(tmp_path)
    files = [
        ("dir/a.b.PNG", picture(1)), ("dir/a.cls", b"1"), ("dir/a.json", b"{}"), ("__meta__.cls", b"9"),
        ("dir/b.tiff", picture(2, "tiff")), ("dir/b.cls", b" 2\n"),
    ]  # fmt: skip
    write_tar(folder / "test" / "0.tar", [("dir/a.png", files[0][1]), *files[1:]])
    write_tar(folder / "test" / "1.tar", [("_c.gif", picture(3, "gif")), ("_c.cls", b"0")])
    task = load_task(folder)
    assert task.keys == ("dir/a", "dir/b", "_c")
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


def damage_link(folder):
    with tarfile.open(folder / "test" / "1.tar", "a") as tar:
        entry = tarfile.TarInfo("t.png")
        entry.type, entry.linkname = tarfile.LNKTYPE, tar.getnames()[0]
        tar.addfile(entry)


@pytest.mark.parametrize(
    "damage", [damage_link, damage_truncated, damage_no_end_mark, damage_header, damage_garbage, damage_sparse]
)
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
        (write("classnames.txt", "one\ntwo\n"), r"'s\d+\.cls' holds class [2-5], but classnames\.txt has 2 \(0 to 1\)"),
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
        (write("test/nshards.txt", "9" * 5000), r"nshards\.txt holds '9{40}'"),
        (write("test/nshards.txt", "999999999"), r"2\.tar is missing"),
        (write("test/nshards.txt", "two"), r"nshards\.txt holds 'two'"),
        (write("test/nshards.txt", "3"), r"2\.tar is missing; .* says there are 3"),
        (tar(), "has no images"),
        (tar(("a.png", b"x"), ("a.index", b"1")), r"sample 'a' has no \.cls file \(it has image, index\)"),
        (tar(("a.png", b"x"), ("a.cls", b"1.0")), "holds b'1.0', not a class number"),
        (tar(("a.png", b"x"), ("a.cls", b"1_0")), "not a class number"),
        (tar(("a.cls", b"1")), "sample 'a' has no image"),
        (tar(("a.png", b"x"), ("a.cls", b"-1")), "holds class -1"),
        (tar(("a.png", b"x"), ("a.cls", b"cat")), "holds b'cat', not a class number"),
        (tar(("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")), "'a' has two images"),
        (tar(("a.png", b"x"), ("a.cls", b"1"), ("b.png", b""), ("b.cls", b"1"), ("a.txt", b"1")), "are not adjacent"),
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean", "reserved for the mean"),
        ("x" * 244, "244 bytes, more than 243"),
        ("\u4e2d" * 82, "246 bytes"),
        ("\udce9", "not UTF-8"),
    ],
)
def test_reserved_and_invalid_task_names_are_refused(tmp_path, name, message):
    classification(tmp_path, name)
    with pytest.raises(InputError, match=message):
        load_tasks(tmp_path)


def test_the_longest_allowed_name_is_accepted(tmp_path):
    classification(tmp_path, "x" * 243)
    assert [task.name for task in load_tasks(tmp_path).tasks] == ["x" * 243]


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


def test_a_tar_that_changes_between_two_reads_is_an_error(tmp_path):
    folder = classification(tmp_path, tars=1)
    task = load_task(folder)
    classification(tmp_path, n=3, tars=1, labels=[0, 1, 2])
    write_tar(folder / "test" / "0.tar", [("zzz.png", picture(0)), ("zzz.cls", b"0")])
    with pytest.raises(InputError, match="changed while it was read"):
        list(task.images())


def test_the_demo_tasks_load_completely():
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


def multilabel(root, name="several", *, labels):
    """A task of random pictures that show several classes, or none."""
    folder = classification(root, name, n=2, classes=4, tars=1)
    samples = []
    for i, row in enumerate(labels):
        data = io.BytesIO()
        np.save(data, np.asarray(row))
        samples.append([(f"m{i}.png", picture(i)), (f"m{i}.npy", data.getvalue())])
    write_shards(folder, samples, 1)
    (folder / "dataset_type.txt").write_text("multilabel\n")
    return folder


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("near\nfar\n\n\n", ("near", "far")),  # labels 0 and 1
        ("near\n\nfar\n", ("near", "", "far")),
        ("\nnear\n", ("", "near")),
        ("\ufeffnear\r\nfar\r\n\r\n", ("near", "far")),
        (" crane \ncrane\t\nmore", ("crane", "crane", "more")),
        ("日本\na & b <i>\n{c} %", ("日本", "a & b <i>", "{c} %")),
        ("\n\nmore\n", ("", "", "more")),
        (
            "a\u2028b\nc\x0cd\ne\x85\nf\x1cg\n",
            ("a\u2028b", "c\x0cd", "e", "f\x1cg"),
        ),  # no line ends of CLIP_benchmark's
        ("near\rfar\rmore", ("near", "far", "more")),
    ],
)
def test_class_names_are_split_at_line_feeds(tmp_path, text, names):
    folder = classification(tmp_path, n=8, classes=2, tars=1)
    (folder / "classnames.txt").write_bytes(text.encode())
    assert load_task(folder).classnames == names


def test_an_empty_line_that_a_label_names_is_a_class(tmp_path):
    folder = classification(tmp_path, n=6, tars=1, labels=[0, 1, 2, 0, 1, 2])
    (folder / "classnames.txt").write_text("near\nfar\n\n\n")
    assert load_task(folder).classnames == ("near", "far", "")
    (folder / "classnames.txt").write_text("near\nfar\n")
    with pytest.raises(InputError, match=r"'s0002\.cls' holds class 2, but classnames\.txt has 2"):
        load_task(folder)


def test_multilabel_labels_are_read_and_checked(tmp_path):
    task = load_task(multilabel(tmp_path, labels=[[1, 0, 0, 1], [0, 0, 0, 0]]))
    assert (task.kind, task.labels.tolist()) == ("multilabel", [[True, False, False, True], [False] * 4])
    task = load_task(multilabel(tmp_path, "floats", labels=[[1.0, 0.0, 1.0, 1.0]]))
    assert task.labels.tolist() == [[True, False, True, True]]
    for labels in ([[0, 1, 0]], [[0, 1, 0, 1, 1]]):
        with pytest.raises(InputError, match=rf"'m0\.npy' has {len(labels[0])} classes, but classnames\.txt has 4"):
            load_task(multilabel(tmp_path, labels=labels))
    for labels in ([[0, 1, 0, 2]], [[0, 1, 0, -1]], [[0, 1, 0, np.nan]], [[[0, 1, 0, 1]]], [["a", "b", "c", "d"]], [1]):
        with pytest.raises(InputError, match=r"'m0\.npy' is not a row of 0 or 1 for each class"):
            load_task(multilabel(tmp_path, labels=labels))
    folder = multilabel(tmp_path, labels=[[0, 1, 0, 1]])
    write_tar(folder / "test" / "0.tar", [("m0.png", picture(0)), ("m0.npy", b"\x93NUMPY cut")])
    with pytest.raises(InputError, match=r"'m0\.npy' is not a row"):
        load_task(folder)


@pytest.mark.parametrize("name", ["sugar_crepe", "sugar_crepe-add_att", "wds_sugar_crepe-swap_obj", "SugarCrepe"])
def test_a_converted_sugar_crepe_is_recognised_by_its_name(tmp_path, name):
    """CLIP_benchmark's converter writes `retrieval`; scored as such, wrong captions would count as right ones."""
    folder = retrieval(tmp_path, name, captions=[["right", "wrong"], ["good", "bad", "worse"]])
    assert load_task(folder).kind == "image_caption_selection"
    retrieval(tmp_path, name, captions=[["right", "wrong"], ["alone"]])
    with pytest.raises(InputError, match=r"'k0001\.txt' has one caption"):
        load_task(folder)
    (folder / "dataset_type.txt").write_text("zeroshot_retrieval\n")  # said by hand, and meant
    assert load_task(folder).kind == "retrieval"


def test_other_types_are_left_out_by_name_and_the_others_run(tmp_path):
    classification(tmp_path)
    for name, text in {"a": "captioning\n", "b": "Linear_Probe", "vtab/c": "x" * 99}.items():
        (retrieval(tmp_path, name) / "dataset_type.txt").write_text(text)
    (retrieval(tmp_path, "d") / "dataset_type.txt").write_text("\ufeffZeroshot_Retrieval \r\n")
    found = load_tasks(tmp_path)
    assert [task.name for task in found.tasks] == ["d", "flags"]
    assert found.left_out == {
        "a": "tasks of type 'captioning' are not supported",
        "b": "tasks of type 'linear_probe' are not supported",
        "vtab-c": f"tasks of type '{'x' * 40}' are not supported",
    }
    with pytest.raises(ParamsError, match=r"benchmark\.names: task 'a' of .*'captioning' are not supported"):
        load_tasks(tmp_path, ("flags", "a"))
    with pytest.raises(InputError, match=r"no task of .*/vtab can be scored \(c: tasks of type"):
        load_tasks(tmp_path / "vtab")


def test_other_files_beside_the_tasks_are_ignored(tmp_path):
    classification(tmp_path / "far", "cifar10")
    classification(tmp_path, "imagenet")
    retrieval(tmp_path / "vtab", "dtd")
    (tmp_path / "vtab" / "cifar10").symlink_to(tmp_path / "far" / "cifar10")
    (tmp_path / "vtab" / ".cache").mkdir()
    (tmp_path / "vtab" / "notes.txt").write_text("x")
    for split in ("train", "val"):
        shutil.copytree(tmp_path / "imagenet" / "test", tmp_path / "imagenet" / split)
    for name in ("README.md", ".DS_Store", "._imagenet"):
        (tmp_path / name).write_bytes(b"\0")
    (tmp_path / ".git" / "test").mkdir(parents=True)
    assert [task.name for task in load_tasks(tmp_path).tasks] == ["far-cifar10", "imagenet", "vtab-cifar10", "vtab-dtd"]
    assert [task.name for task in load_tasks(tmp_path, ("vtab/dtd", "vtab-dtd")).tasks] == ["vtab-dtd"]
    classification(tmp_path, "vtab-dtd")
    with pytest.raises(InputError, match=r"two folders of .* are task 'vtab-dtd'"):
        load_tasks(tmp_path)
    shutil.rmtree(tmp_path / "vtab-dtd")
    (tmp_path / "vtab" / "unfinished").mkdir()
    with pytest.raises(InputError, match=r"vtab/unfinished: .*nshards\.txt is missing"):
        load_tasks(tmp_path)


@pytest.mark.parametrize(("program", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_a_compressed_tar_is_named(tmp_path, program, pack):
    folder = classification(tmp_path, tars=1)
    path = folder / "test" / "0.tar"
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(InputError, match=rf"0\.tar is compressed by {program}\. Unpack it"):
        load_task(folder)


def test_macos_metadata_files_in_a_tar_are_no_samples(tmp_path):
    folder = classification(tmp_path, tars=1, n=2, labels=[1, 1])
    files = [("./d/._a.png", b"\0"), ("./d/a.png", picture(1)), ("._a.cls", b"\0"), ("./d/a.cls", b"1\n")]
    write_tar(folder / "test" / "0.tar", files)
    assert load_task(folder).keys == ("./d/a",)
