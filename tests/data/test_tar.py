"""The plain reader against the standard one, and against damage."""

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.data.shards import Sample, read_captions, read_keys, read_shard, write_shard
from cliprd.data.tar import tar_files
from cliprd.errors import InputError
from tests.data.pictures import write_tar

_KEYS = st.text(
    st.characters(min_codepoint=48, max_codepoint=0x17F, exclude_characters="./\\"), min_size=1, max_size=30
)


def standard(path):
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_KEYS, st.binary(max_size=2000), max_size=5))
def test_it_reads_what_tarfile_reads(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    samples = [Sample(key, image, "jpg", (f"caption of {key}", "and another")) for key, image in found.items()]
    write_shard(path, samples)
    assert list(tar_files(path)) == standard(path)
    assert list(read_shard(path)) == samples
    assert list(read_captions(path)) == [sample.captions for sample in samples]
    assert list(read_keys(path)) == [sample.key for sample in samples]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "0.tar"
    write_shard(path, [Sample(f"{n}", bytes([n]) * 700, "png", (f"picture {n}",)) for n in range(3)])
    return path


def test_a_tar_that_ends_early_is_refused_wherever_it_ends(shard):
    data = shard.read_bytes()
    end = data.rstrip(b"\0").__len__() // 512 * 512 + 512
    for length in range(0, end + 1, 37):
        shard.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"0\.tar is damaged"):
            list(read_shard(shard))


def test_a_changed_header_is_refused(shard):
    data = shard.read_bytes()
    for start in (0, 512 + 1024):  # of an image, of its caption
        for place in (0, 50, 124, 130, 150, 156, 257, 400):
            broken = bytearray(data)
            broken[start + place] ^= 1
            shard.write_bytes(broken)
            with pytest.raises(InputError, match=r"0\.tar is damaged"):
                list(read_shard(shard))


def test_what_is_no_shard_is_refused(tmp_path):
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, "b"
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        tar.addfile(link)
    (tmp_path / "text.tar").write_bytes(b"no tar at all" * 100)
    write_tar(tmp_path / "latin.tar", [("a.jpg", b""), ("a.txt", b"\xff")])
    for name in ("link", "text", "latin", "missing"):
        with pytest.raises(InputError, match=f"{name}.tar is damaged"):
            list(read_shard(tmp_path / f"{name}.tar"))


def test_what_is_skipped_is_not_read(shard):
    assert [name for name, _ in tar_files(shard, only=".txt")] == ["0.txt", "1.txt", "2.txt"]
