"""Every layout gives the same records in the same order; what is damaged is named."""

import gzip
import shutil

import pytest

from cliprd.data.packing import pack
from cliprd.data.raw import Raw, safe_key
from cliprd.data.sources import fingerprint, inventory, records
from cliprd.errors import InputError
from cliprd.params import Data
from tests.data.pictures import pairs, png, write_tar


def read(path, kind="webdataset", **options):
    return list(records(Data(kind=kind, path=str(path), **options)))


def test_img2dataset_shards(tmp_path):
    for i in range(2):
        write_tar(tmp_path / f"{i:05d}.tar", pairs(3, start=3 * i))
        (tmp_path / f"{i:05d}_stats.json").write_text("{}")
        (tmp_path / f"{i:05d}.parquet").write_bytes(b"PAR1")
    found = read(tmp_path)
    assert [raw.key for raw in found] == [f"{i:09d}" for i in range(6)]
    assert found[4] == Raw(
        f"{tmp_path}/00001.tar:000000004", "000000004", png(seed=4, width=20, height=16), (b"picture 4 of noise",)
    )


@pytest.mark.parametrize("pattern", ["{00000..00001}.tar", "0000?.tar", "{00000,00001}.tar"])
def test_a_pattern_selects_its_files(tmp_path, pattern):
    for i in range(3):
        write_tar(tmp_path / f"{i:05d}.tar", pairs(2, start=2 * i))
    assert len(read(f"{tmp_path}/{pattern}")) == (6 if "?" in pattern else 4)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_gzipped_tars(tmp_path, name):
    write_tar(tmp_path / name, pairs(3), mode="w:gz")
    assert [raw.key for raw in read(tmp_path)] == [f"{i:09d}" for i in range(3)]


def test_captions_from_json(tmp_path):
    members = []
    for key, text in {
        "a": '{"caption": "one\\ntwo"}',
        "b": '{"caption": ["x", "y"]}',
        "c": '{"caption": null}',
        "d": "{broken",
        "e": "[1]",
        "f": '{"caption": "\\ud800"}',
    }.items():
        members += [(f"{key}.JPG", b"i"), (f"{key}.json", text.encode())]
    a, b, c, d, e, f = read(write_tar(tmp_path / "x.tar", members))
    assert a.captions == (b"one\ntwo",)
    assert b.captions == (b"x", b"y")
    assert (c.captions, c.fault) == (None, None)
    assert d.fault[0] == e.fault[0] == "broken_json"
    assert f.captions == (b"\xed\xa0\x80",)  # no UTF-8: the next check says so
    assert a.image == b"i"


def test_a_repeated_ending_starts_another_sample(tmp_path):
    members = [("a.png", b"1"), ("a.txt", b"x"), ("a.png", b"2"), ("a.txt", b"y")]
    first, second = read(write_tar(tmp_path / "x.tar", members))
    assert (first.image, second.image) == (b"1", b"2")
    assert first.key == second.key == "a"


@pytest.mark.parametrize("cut", [512 * 3 + 100, 512 * 4, 512 * 7 + 9, -10240, -1024, 0])
def test_a_truncated_tar_is_never_taken_for_a_complete_one(tmp_path, cut):
    path = write_tar(tmp_path / "00000.tar", pairs(40))
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    path.write_bytes(data[: cut if cut >= 0 else min(end, len(data) + cut)])
    with pytest.raises(InputError, match=r"00000\.tar is damaged or truncated"):
        read(tmp_path)


def test_a_tar_cut_between_two_members_is_an_error(tmp_path):
    """Python's tarfile takes this for the end of the archive."""
    path = write_tar(tmp_path / "00000.tar", [("a.png", b"x" * 512), ("a.txt", b"y" * 512), ("b.png", b"z" * 512)])
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(InputError, match=r"00000\.tar"):
        read(tmp_path)


def test_a_damaged_header_is_an_error(tmp_path):
    path = write_tar(tmp_path / "00000.tar", [("a.png", b"x" * 512), ("a.txt", b"y" * 512), ("b.png", b"z" * 512)])
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"00000\.tar.*byte 1024"):
        read(tmp_path)


@pytest.mark.parametrize("spoil", ["cut", "body", "checksum"])
def test_a_damaged_gzip_is_an_error(tmp_path, spoil):
    path = write_tar(tmp_path / "a.tar.gz", pairs(5), mode="w:gz")
    data = bytearray(path.read_bytes())
    if spoil == "cut":
        del data[-30:]
    else:
        data[len(data) // 2 if spoil == "body" else -6] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar\.gz"):
        read(tmp_path)


def test_open_clips_csv(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"A")
    (tmp_path / "b.png").write_bytes(b"B")
    table = tmp_path / "train.csv"
    rows = [
        "extra\tfilepath\ttitle",
        "1\timages/a.png\ta cat",
        f'2\t{tmp_path}/b.png\t"a ""dog""\nof mine"',
        "3\tmissing.png\tnothing",
        "4\tb.png",
        "5\t\tno file",
    ]
    table.write_bytes(b"\xef\xbb\xbf" + "\n".join(rows).encode().replace(b"cat", b"c\xe4t") + b"\n")
    a, b, missing, short, nameless = read(table, "csv")
    assert (a.key, a.image, a.captions) == (safe_key("images/a.png"), b"A", (b"a c\xe4t",))
    assert (b.image, b.captions) == (b"B", (b'a "dog"\nof mine',))
    assert missing.fault[0] == "missing_image"
    assert f"{tmp_path}/missing.png does not exist" in missing.fault[1]
    assert short.fault[0] == "ragged_row"
    assert nameless.fault[0] == "missing_image"
    assert a.source == f"{table}:2"


def test_consecutive_rows_of_one_image_are_its_captions(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    (tmp_path / "t.csv").write_text("filepath,title\na.png,1\na.png,2\nb.png,3\na.png,4\n")
    found = read(tmp_path / "t.csv", "csv", csv_separator=",")
    assert [(raw.key, raw.captions) for raw in found] == [
        (safe_key("a.png"), (b"1", b"2")),
        (safe_key("b.png"), (b"3",)),
        (safe_key("a.png"), (b"4",)),
    ]


def test_csv_with_wrong_columns(tmp_path):
    (tmp_path / "t.csv").write_text("image,text\na.png,x\n")
    with pytest.raises(InputError, match=r"no column 'filepath'; it has 'image,text'.*csv_separator"):
        read(tmp_path / "t.csv", "csv")


def test_csv_with_impossible_file_names(tmp_path):
    (tmp_path / "t.csv").write_text(f"filepath,title\n{'x' * 5000}.png,a\na\0b.png,c\n.,d\n")
    assert [raw.image for raw in read(tmp_path / "t.csv", "csv", csv_separator=",")] == [None, None, None]


def test_gzipped_csv_and_a_field_over_the_size_limit(tmp_path):
    (tmp_path / "a.png").write_bytes(b"A")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"filepath\ttitle\na.png\tx\n"))
    assert read(tmp_path / "t.csv.gz", "csv")[0].captions == (b"x",)
    (tmp_path / "u.csv").write_text("filepath\ttitle\na.png\t" + "x" * 200_000)
    with pytest.raises(InputError, match=r"u\.csv:2 has a field that is too long"):
        read(tmp_path / "u.csv", "csv")


def test_captioned_folder(tmp_path):
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/a.b.JPG").write_bytes(b"A")
    (tmp_path / "birds/a.b.txt").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "c.png").write_bytes(b"C")
    (tmp_path / "lonely.txt").write_bytes(b"no image")
    a, c, lonely = read(tmp_path, "folder")
    assert (a.image, a.captions) == (b"A", (b"one", b"two", b""))
    assert (c.key, c.captions) == ("c", None)
    assert (lonely.key, lonely.image) == ("lonely", None)


@pytest.mark.parametrize("beside", ["a.b.jpg.txt", "a.b.caption", "a.b.json", "a.txt", "A.b.txt"])
def test_rejecting_a_picture_without_caption_names_the_expected_file(tmp_path, beside):
    (tmp_path / "a.b.jpg").write_bytes(png())
    (tmp_path / beside).write_bytes(b"a cat")
    reasons = [pack(raw, Data()) for raw in read(tmp_path, "folder") if raw.image]
    assert [reason.reason for reason in reasons] == ["missing_caption"]
    assert reasons[0].detail == "found: a.b.jpg; captions are read from a.b.txt beside it"


def test_missing_and_empty_sources(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist\..*data\.path"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no file that ends in \.tar"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"99999\.tar does not exist"):
        read(f"{tmp_path}/{{99999..99999}}.tar")


def test_safe_keys_are_valid_and_never_collide():
    names = ["a.b", "a_b", "a b", "a/b", "日本", "日木", "", ".", "x" * 81, "x" * 82, "y/" + "x" * 82]
    keys = [safe_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert safe_key("000000123") == "000000123"
    for key in keys:
        assert key
        assert len(key) <= 80
        assert not set(key) & set("./ ")


@pytest.mark.parametrize("kind", ["webdataset", "csv", "folder"])
def test_every_byte_changes_the_fingerprint(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(b"A")
    (tmp_path / "a.txt").write_bytes(b"caption")
    (tmp_path / "t.csv").write_text("filepath\ttitle\na.png\tx\n")
    write_tar(tmp_path / "s.tar", [("a.png", b"A"), ("a.txt", b"x")])
    data = Data(kind=kind, path=str(tmp_path / "t.csv" if kind == "csv" else tmp_path))
    before = fingerprint(data)
    assert before == fingerprint(data)
    watched = {"webdataset": ["s.tar"], "csv": ["t.csv", "a.png"], "folder": ["a.png", "a.txt"]}[kind]
    for name in watched:
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # same size, one bit
        assert fingerprint(data) != before, name
        path.write_bytes(content)
    assert fingerprint(data) == before


@pytest.mark.parametrize(
    ("pattern", "names", "stems"),
    [
        ("", ["a.tar", "b.tar.gz"], ["a", "b"]),
        ("a.tar", ["a.tar"], ["a"]),
        ("{a.tar,b.tar.gz}", ["a.tar", "b.tar.gz"], ["a", "b"]),
        ("*.tar*", ["a.tar", "b.tar.gz"], ["a", "b"]),
    ],
)
def test_sources_are_named_relative_to_their_common_prefix(tmp_path, pattern, names, stems):
    write_tar(tmp_path / "raw/a.tar", pairs(1))
    write_tar(tmp_path / "raw/b.tar.gz", pairs(1, start=1), mode="w:gz")
    found = inventory(Data(path=f"{tmp_path}/raw/{pattern}"))
    assert [source.name for source in found] == names
    assert [source.stem for source in found] == stems
    assert [next(records(Data(path=str(tmp_path)), source)).key for source in found] == [
        f"{i:09d}" for i in range(len(found))
    ]


def test_stems_are_unique_and_independent_of_other_files(tmp_path):
    for folder in ("x", "y"):
        write_tar(tmp_path / folder / "a.tar", pairs(1))
    both = inventory(Data(path=f"{tmp_path}/{{x,y}}/a.tar"))
    assert [source.name for source in both] == ["x/a.tar", "y/a.tar"]
    assert len({source.stem for source in both}) == 2
    (one,) = inventory(Data(path=f"{tmp_path}/{{x}}/a.tar"))
    assert one.stem == both[0].stem
    write_tar(tmp_path / "x/a.tar.gz", pairs(1, start=5), mode="w:gz")
    twins = inventory(Data(path=str(tmp_path / "x")))
    assert len({source.stem for source in twins}) == 2


def test_a_table_is_one_source_with_its_images_and_a_folder_is_one(tmp_path):
    (tmp_path / "i.txt").write_text("one")
    (tmp_path / "t.csv").write_text("filepath\ttitle\ni.png\tone\n")
    for kind, path, name in (("csv", tmp_path / "t.csv", "t.csv"), ("folder", tmp_path, tmp_path.name)):
        (tmp_path / "i.png").write_bytes(png())
        (before,) = inventory(Data(kind=kind, path=str(path)))
        assert before.name == name
        (tmp_path / "i.png").write_bytes(png(seed=5))
        (after,) = inventory(Data(kind=kind, path=str(path)))
        assert after.fingerprint != before.fingerprint
        moved = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-{kind}")
        (same,) = inventory(Data(kind=kind, path=str(moved / name if kind == "csv" else moved)))
        assert same.fingerprint == after.fingerprint
