"""A name that the file system allows can be named; an address is read in one way or refused."""

import os

import pytest

from cliprd import storage
from cliprd.data.sources import inventory, records
from cliprd.params import Data, Params
from cliprd.stages import prepare
from tests.data.pictures import pairs, png, write_tar

NAMES = [
    "a b",
    "it's",
    'say "x"',
    "{0..1}",
    "{a,b}",
    "[x]",
    "*",
    "a?b",
    "#1",
    "50%20",
    "-v",
    "caf\u00e9",
    "cafe\u0301",
    "new\nline",
    "x" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_file_names_of_tars_and_folders_are_read(tmp_path, name):
    folder = tmp_path / name
    write_tar(folder / f"{name}.tar", pairs(2))
    for path in (folder, folder / f"{name}.tar"):
        (source,) = inventory(Data(path=str(path)))
        assert source.name == f"{name}.tar"
        assert len(list(records(Data(path=str(path)), source))) == 2
    write_tar(folder / "n0.tar", pairs(1))
    write_tar(folder / "n1.tar", pairs(1, 1))
    for pattern in ("n{0..1}.tar", "n?.tar"):  # a pattern behind a folder that is named as it is
        assert [source.name for source in inventory(Data(path=f"{folder}/{pattern}"))] == ["n0.tar", "n1.tar"]


@pytest.mark.parametrize("name", [*NAMES, " edges ", os.fsdecode(b"gr\xfcn")])
def test_odd_file_names_in_cells_and_folders_are_read(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{name}.png").write_bytes(png())
    (tmp_path / "in" / f"{name}.txt").write_text("one")
    (folder,) = records(Data(kind="folder", path=str(tmp_path / "in")))
    assert (folder.image, folder.captions) == (png(), (b"one",))
    quoted = os.fsencode(name).replace(b'"', b'""')
    (tmp_path / "t.csv").write_bytes(b'filepath,title\n"in/' + quoted + b'.png",one\n')
    for kind, path in (("csv", tmp_path / "t.csv"), ("folder", tmp_path / "in")):
        data = {"kind": kind, "path": str(path), "csv_separator": ","}
        made = prepare.run(Params.model_validate({"data": data}), {}, tmp_path / f"out-{kind}")
        assert made.facts["samples"] == 1


def test_white_space_around_a_cell_is_stripped_unless_the_file_name_has_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"A")
    (tmp_path / "t.csv").write_text("filepath,title\n a.png ,one\n")
    (found,) = records(Data(kind="csv", path=str(tmp_path / "t.csv"), csv_separator=","))
    assert found.image == b"A"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "s3://bucket//a//b",
            "s3://bucket/a//b",
            "s3://bucket//",
            "s3://bucket/a//",
            "s3://",
            "s3:///a",
            "s3:/bucket/a",
        ),
        *("s3:bucket", "S3://bucket/a", "gs://bucket/a", "s3://bucket/a/../b", "s3://bucket/./a", "s3://bucket/a\nb"),
    ],
)
def test_an_ambiguous_address_is_refused(address):
    with pytest.raises(storage.BadAddress) as caught:
        storage.parse(address)
    assert "\n" not in str(caught.value)
    for kind in ("webdataset", "csv", "folder"):
        with pytest.raises(storage.BadAddress):
            inventory(Data(kind=kind, path=address))


@pytest.mark.parametrize("address", ["s3://bucket", "s3://bucket/", "s3://bucket/a b/", "s3://bucket/a%20b?x#y/{0}"])
def test_unambiguous_addresses_are_not_changed(address):
    assert storage.parse(address) == address.removesuffix("/")
