"""Tars as people have them: what is no sample has a reason that names the files found."""

import gzip
import io
import json
import pickle
import tarfile

import pytest

from cliprd.data.archives import samples
from cliprd.data.packing import Rejection, pack
from cliprd.errors import InputError
from cliprd.params import Data
from tests.data.pictures import pairs, png, write_tar


def outcome(path):
    """Key → reason and detail; None for what is packed."""
    items = [pack(raw, Data()) for raw in samples(str(path))]
    return [(i.reason, i.detail) if isinstance(i, Rejection) else None for i in items]


def add(tar, name, data=b"", kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(data)
    tar.addfile(entry, io.BytesIO(data))


REJECTED = {
    "captionless": ([("a.png", png()), ("a.json", b'{"key": "a"}')], "missing_caption", "a.png, a.json"),
    "classes": ([("a.png", png()), ("a.cls", b"3")], "missing_caption", "a.png, a.cls"),
    "tendata": ([("a.ten.pyd", pickle.dumps([1])), ("a.info.json", b"{}")], "missing_image", "a.ten.pyd, a.info.json"),
    "testgz": ([("a.png.gz", b"\x1f\x8b"), ("a.txt.gz", b"\x1f\x8b")], "missing_image", "a.png.gz, a.txt.gz"),
    "mpdata": ([("a.mp", b"\x81\xa1a\x01")], "missing_image", "a.mp"),
    "nested picture": ([("a.input.jpg", b"x"), ("a.out.txt", b"y")], "nested_ending", "a.input.jpg, a.out.txt"),
    "nested caption": ([("a.PNG", png()), ("a.en.txt", b"y")], "nested_ending", "a.PNG, a.en.txt"),
    "two pictures": ([("a.jpg", b"x"), ("a.png", png()), ("a.txt", b"y")], "several_images", "a.jpg, a.png, a.txt"),
    "empty caption": ([("a.png", png()), ("a.txt", b""), ("a.json", b'{"caption": "x"}')], "empty_caption", "a.txt"),
    "apple's picture": ([("a.heic", b"\0\0\0\x18ftypheic"), ("a.txt", b"y")], "unsupported_format", "HEIC"),
    "a drawing": ([("a.svg", b"<svg/>"), ("a.txt", b"y")], "unsupported_format", "SVG"),
}


@pytest.mark.parametrize(("members", "reason", "names"), REJECTED.values(), ids=REJECTED)
def test_a_rejection_lists_the_files_of_the_sample(tmp_path, members, reason, names):
    ((found, detail),) = outcome(write_tar(tmp_path / "a.tar", members))
    assert (found, names in detail) == (reason, True)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("member", ["b.png", "b.txt"])
def test_links_in_a_tar_are_rejected_by_name(tmp_path, kind, member):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "dir", kind=tarfile.DIRTYPE)
        add(tar, "a.png", png())
        add(tar, "a.txt", b"x")
        for name, data in (("b.png", png()), ("b.txt", b"y")):
            if name == member:
                add(tar, name, kind=kind, link="a" + name[1:])
            else:
                add(tar, name, data)
    first, (reason, detail) = outcome(tmp_path / "a.tar")
    assert (first, reason) == (None, "link")
    assert f"{member} is a link to a{member[1:]}; found: b.png, b.txt" in detail


def test_metadata_files_of_macos_and_windows_are_skipped_and_counted(tmp_path):
    members = []
    for name, data in pairs(2):
        members += [(f"./._{name}", b"\0\5\x16\7"), (f"__MACOSX/._{name}", b""), (f"./{name}", data)]
    path = write_tar(tmp_path / "a.tar", [(".DS_Store", b""), *members, ("Thumbs.db", b"")])
    found = list(samples(str(path)))
    assert len(found) == 2
    assert sum(raw.notes.count("skipped") for raw in found) == 14
    assert outcome(path) == [None, None]


def test_files_of_a_sample_that_are_not_adjacent_are_rejected(tmp_path):
    members = sorted(pairs(3), key=lambda member: member[0].rsplit(".")[-1])  # all .json, then .png, then .txt
    reasons = outcome(write_tar(tmp_path / "a.tar", [m for m in members if not m[0].endswith(".json")]))
    assert [reason for reason, _ in reasons] == ["missing_caption"] * 3 + ["parts_apart"] * 3
    assert (
        "found: 000000000.txt; the files of a sample are not adjacent in the tar: pack it with tar --sort=name"
        in reasons[3][1]
    )


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(tmp_path, form):
    long = "deep/" * 15 + "n" * (20 if form == tarfile.USTAR_FORMAT else 200)
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        add(tar, f"{long}.JPG", png())
        add(tar, f"{long}.TXT", b"x")
    assert outcome(tmp_path / "a.tar") == [None]


def test_file_names_that_are_not_utf_8_are_read(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name, data in (("gr\xfcn.png", png()), ("gr\xfcn.txt", b"x"), ("r\xf6t.png", png())):
            add(tar, name, data)
    assert outcome(tmp_path / "a.tar") == [None, ("missing_caption", r"found: r\udcf6t.png")]
    json.dumps([raw.key for raw in samples(str(tmp_path / "a.tar"))], ensure_ascii=False).encode()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.any"])
def test_compression_is_detected_by_content_not_by_name(tmp_path, mode, name):
    path = write_tar(tmp_path / name, pairs(3), mode=mode)
    assert outcome(path) == [None] * 3
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is damaged or truncated"):
        outcome(path)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is damaged"), (b"hello" * 200, "is damaged"), (b"PAR1xxxx", "Parquet")]
)
def test_a_file_that_is_no_tar_is_refused_by_kind(tmp_path, content, words):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match=words):
        outcome(tmp_path / "a.tar")
    write_tar(tmp_path / "b.tar", [])
    assert outcome(tmp_path / "b.tar") == []


@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("behind", ["tar", "text", "noise", "far"])
def test_data_after_the_end_of_the_archive_is_refused(tmp_path, behind, packed):
    write_tar(tmp_path / "a.tar", pairs(2))
    tar = (tmp_path / "a.tar").read_bytes()
    more = {"tar": tar, "text": b"hello", "noise": b"\x93" * 700, "far": bytes(3 << 20) + b"x"}[behind]
    (tmp_path / "b.tar").write_bytes(packed(tar) + packed(more))
    with pytest.raises(InputError, match=r"b\.tar has data after the end"):
        outcome(tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(packed(tar) + packed(bytes(70_000)))  # other block sizes
    assert outcome(tmp_path / "b.tar") == [None, None]


@pytest.mark.parametrize("value", ['"a cat"', '["a cat"]', "3", "null", "true"])
def test_json_that_is_no_object_is_named(tmp_path, value):
    write_tar(tmp_path / "a.tar", [("a.png", png()), ("a.json", value.encode())])
    [(reason, detail)] = outcome(tmp_path / "a.tar")
    assert reason == "broken_json"
    assert "not an object with a caption" in detail
    assert "attribute" not in detail


@pytest.mark.parametrize("caption", ["\u200b", "\u00a0\u200b \ufeff", "\u202e\u202c", "\x01", "\u2060\n\u200d"])
def test_a_caption_without_visible_characters_is_empty(tmp_path, caption):
    write_tar(tmp_path / "a.tar", [("a.png", png()), ("a.txt", caption.encode())])
    assert outcome(tmp_path / "a.tar")[0][0] == "empty_caption"
    write_tar(tmp_path / "a.tar", [("a.png", png()), ("a.txt", f"{caption}\N{GRINNING FACE}".encode())])
    assert outcome(tmp_path / "a.tar") == [None]
