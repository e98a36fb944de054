"""The number of pairs is counted or unknown, never assumed."""

import json
import subprocess
import sys

import pytest

from cliprd import cli
from cliprd.data.count import Pairs, count, of_source
from cliprd.params import Data, Params
from cliprd.stages import prepare
from tests.data.pictures import pairs, png, write_tar


def found(path, kind="webdataset", **options):
    return of_source(Data(kind=kind, path=str(path), **options))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_tars_are_counted_by_file_names(tmp_path, name):
    members = [
        *pairs(3),
        ("x.png", png()),  # no caption
        ("y.txt", b"no picture"),
        ("z.jpg", b"1"), ("z.json", b"{}"), ("z.jpg", b"2"), ("z.txt", b"two samples of one key"),
    ]  # fmt: skip
    write_tar(tmp_path / name, members, mode="w:gz" if name.endswith("gz") else "w")
    assert found(tmp_path) == Pairs(5, f"found in {tmp_path}; some may be set aside by `prepare`")


def test_counting_does_not_read_pictures(tmp_path):
    """A sparse tar of a terabyte, of which nobody has time to read more than the headers."""
    import tarfile

    path = tmp_path / "a.tar"
    size = 1 << 40
    with path.open("wb") as file:
        for name, length in (("a.png", size), ("a.txt", 512)):
            entry = tarfile.TarInfo(name)
            entry.size = length
            file.write(entry.tobuf(format=tarfile.GNU_FORMAT))
            file.seek(length, 1)
        file.write(b"\0" * 1024)
    assert found(tmp_path).number == 1


def test_img2dataset_stats_are_used(tmp_path):
    for number, successes in enumerate((7, 5)):
        (tmp_path / f"{number:05d}.tar").write_bytes(b"never looked into")
        (tmp_path / f"{number:05d}_stats.json").write_text(json.dumps({"count": 10, "successes": successes}))
    assert found(tmp_path) == Pairs(12, f"downloaded into {tmp_path}, as img2dataset's _stats.json say")
    (tmp_path / "00001_stats.json").write_text("[]")
    assert found(tmp_path).number is None  # one is damaged, and so is the tar


def test_tables_and_folders(tmp_path):
    rows = ["a.png\tone", "a.png\ttwo", "b.png\tthree", "a.png\tfour", "\tfive", "c.png"]
    (tmp_path / "t.csv").write_text("\n".join(["filepath\ttitle", *rows]) + "\n")
    assert found(tmp_path / "t.csv", "csv").number == 3
    for name in ("a.png", "a.txt", "b.JPG", "b.txt", "c.png", "d.txt"):
        (tmp_path / "f").mkdir(exist_ok=True)
        (tmp_path / "f" / name).write_text("x")
    assert found(tmp_path / "f", "folder").number == 2


@pytest.mark.parametrize("path", ["nowhere", "nowhere/{0..1}.tar", "*.tar"])
def test_a_missing_source_gives_no_number(tmp_path, path):
    number, why = found(tmp_path / path)
    assert number is None
    assert str(tmp_path) in why


def test_finished_shards_come_first_if_they_are_of_these_parameters(tmp_path):
    write_tar(tmp_path / "raw/a.tar", [*pairs(3), ("x.png", b"no picture"), ("x.txt", b"x")])
    data = Data(path=str(tmp_path / "raw"), max_bad_fraction=1)
    shards = tmp_path / "shards"
    assert count(data, shards).number == 4
    prepare.run(Params(data=data), {}, shards)
    assert count(data, shards) == Pairs(3, f"packed in {shards}")
    assert count(data.model_copy(update={"max_pixels": 100}), shards).number == 4
    (shards / "manifest.json").write_text("damaged")
    assert count(data, shards).number == 4


def test_the_count_command_prints_the_number(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "raw/a.tar", pairs(3))
    student = "student.config={embed_dim: 8, vision_cfg: {image_size: 16, patch_size: 8, layers: 1, width: 16,"
    student += " head_width: 8}, text_cfg: {context_length: 8, vocab_size: 49408, layers: 1, width: 8, heads: 1}}"
    (tmp_path / "params.yaml").write_text("data: {path: raw}\n")
    assert cli.main(["plan", "--set", student]) == 0
    assert "data     3 pairs, found in raw;" in capsys.readouterr().out
    assert cli.main(["plan", "--set", student, "--samples", "1000"]) == 0
    assert "data     1,000 pairs, as given" in capsys.readouterr().out
    assert cli.main(["plan", "--set", student, "--set", "data.path=none"]) == 0
    said = capsys.readouterr().out
    assert "data     unknown number of pairs: none does not exist." in said
    assert "cost     unknown: give the number of pairs with --samples" in said
    assert "1,000,000" not in said
    assert "PFLOP" not in said
    for wrong in ("0", "-1", "1.5", "many"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["plan", "--samples", wrong])
        assert ended.value.code == 2


def test_counting_needs_no_torch():
    code = "import sys, cliprd.data.count; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
