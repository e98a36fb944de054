"""The number of pairs is counted or unknown, never assumed."""

import json
import random
import subprocess
import sys

import pytest

from cliprd import cli, params
from cliprd.data import count as counting
from cliprd.data.count import Estimate, PairCount, count, of_source
from cliprd.params import Data, Params
from cliprd.plan import plan
from cliprd.stages import prepare
from cliprd.storage.streams import ObjectReader
from tests.data.pictures import pairs, png, write_tar
from tests.kubeflow.paths import ROOT


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
    assert found(tmp_path) == PairCount(5, f"found in {tmp_path}; some may be set aside by `prepare`")


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
    assert found(tmp_path) == PairCount(12, f"downloaded into {tmp_path}, as img2dataset's _stats.json say")
    (tmp_path / "00001_stats.json").write_text("[]")
    assert found(tmp_path).number is None  # one is damaged, and so is the tar


def test_an_index_of_all_tars_is_used(tmp_path):
    for number in range(2):
        (tmp_path / f"{number:05d}.tar").write_bytes(b"never looked into")
    (tmp_path / "sizes.json").write_text('{"00000.tar": 7, "00001.tar": 5, "other.tar": 9}')
    assert found(tmp_path) == PairCount(12, f"in {tmp_path}, as its sizes.json says")
    for damaged in ('{"00000.tar": 7}', '{"00000.tar": 7, "00001.tar": "5"}', "[]", "{"):
        (tmp_path / "sizes.json").write_text(damaged)
        assert found(tmp_path).number is None  # the tars themselves are no tars


def test_shards_of_prepare_are_known_by_their_manifest(tmp_path):
    write_tar(tmp_path / "raw/a.tar", pairs(3))
    shards = tmp_path / "shards"
    prepare.run(Params(data=Data(path=str(tmp_path / "raw"), samples_per_shard=2)), {}, shards)
    assert found(shards) == PairCount(3, f"in {shards}, as the manifest of `prepare` there says")
    write_tar(shards / "more.tar", pairs(2, start=3))
    assert found(shards) == PairCount(5, f"found in {shards}; some may be set aside by `prepare`")


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
    assert count(data, shards) == PairCount(3, f"packed in {shards}")
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


@pytest.fixture
def raw(bucket):
    """Make a data set of tars in S3; gives its address."""

    def make(name: str, tars: dict[str, bytes]) -> str:
        for tar, content in tars.items():
            bucket.put_object(Bucket="pairs", Key=f"{name}/{tar}", Body=content)
        return f"s3://pairs/{name}"

    return make


@pytest.fixture
def tar(tmp_path):
    """The bytes of a tar of so many pairs."""

    def make(count: int, name: str = "x.tar", **options) -> bytes:
        write_tar(tmp_path / name, pairs(count), **options)
        return (tmp_path / name).read_bytes()

    return make


def test_small_tars_in_s3_are_counted(raw, tar):
    url = raw("small", {"a.tar": tar(3), "b.tar.gz": tar(2, "y.tar.gz", mode="w:gz")})
    assert found(url) == PairCount(5, f"found in {url}; some may be set aside by `prepare`")


def test_large_tars_in_s3_are_estimated_from_their_beginnings(raw, tar, monkeypatch):
    """Nineteen of 100 pairs and one of 500, of which no more is read than the beginnings of eight."""
    monkeypatch.setattr(counting, "MOST_READ", 1 << 16)
    monkeypatch.setattr(counting, "BEGINNING", 1 << 14)
    hundred = tar(100)
    tars = {f"{number:02d}.tar": hundred for number in range(19)} | {"99.tar": tar(500)}
    url = raw("large", tars)
    pairs_found = found(url)
    number, where = pairs_found
    assert isinstance(pairs_found, Estimate)
    assert number == pytest.approx(2400, rel=0.05)
    assert "at the beginning of 8 of the 20 tar(s)" in where
    assert int(where.split("from ")[1].split(" ")[0]) < 8 * 100


def test_an_estimate_reads_no_more_than_the_beginnings(raw, tar, monkeypatch):
    monkeypatch.setattr(counting, "MOST_READ", 1 << 16)
    monkeypatch.setattr(counting, "BEGINNING", 1 << 14)
    url = raw("wide", {f"{number}.tar": tar(100) for number in range(3)})
    read = []
    whole = ObjectReader.readinto

    def readinto(self, buffer):
        read.append(whole(self, buffer))
        return read[-1]

    monkeypatch.setattr(ObjectReader, "readinto", readinto)
    assert isinstance(found(url), Estimate)
    assert sum(read) <= 3 * ((1 << 14) + 2 * (1 << 16))  # and what the stream reads ahead


def test_compressed_tars_are_estimated_too(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MOST_READ", 1 << 16)
    monkeypatch.setattr(counting, "BEGINNING", 1 << 18)
    noise = random.Random(0).randbytes
    files = [(f"{number}{ending}", noise(2000)) for number in range(600) for ending in (".png", ".txt")]
    write_tar(tmp_path / "z.tar.gz", files, mode="w:gz")
    packed = (tmp_path / "z.tar.gz").read_bytes()
    url = raw("packed", {f"{number}.tar.gz": packed for number in range(3)})
    estimate = found(url)
    assert isinstance(estimate, Estimate)
    assert estimate.number == pytest.approx(1800, rel=0.15)  # what is read ahead counts: 1 % of a beginning of 2 MiB
    assert "at the beginning of 3 of the 3 tar(s)" in estimate.where


def test_beginnings_that_are_all_there_is_are_a_count(raw, tar, monkeypatch):
    monkeypatch.setattr(counting, "MOST_READ", 100)
    url = raw("short", {f"{number}.tar": tar(5) for number in range(3)})
    assert found(url) == PairCount(15, f"found in {url}; some may be set aside by `prepare`")
    assert not isinstance(found(url), Estimate)


def test_what_cannot_be_estimated_is_unknown_with_the_reason(raw, tar, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MOST_READ", 100)
    write_tar(tmp_path / "o.tar", [("a.flac", b"x"), ("b.txt", b"y")])
    url = raw("others", {"a.tar": tar(9), "b.tar": (tmp_path / "o.tar").read_bytes()})
    number, where = found(url)
    assert number is None
    assert "is not downloaded for a count; one of its tars has no pair at the beginning" in where


def test_the_plan_says_what_rests_on_an_estimate():
    text = plan(params.load(ROOT / "params.yaml"), Estimate(8900, "estimated from 100"))
    assert "data     about 8,900 pairs, estimated from 100" in text
    assert "computed from this estimate" in text
