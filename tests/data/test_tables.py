"""Tables as people write them: read as pandas reads them, or refused with the line."""

import bz2
import gzip
import lzma
import zipfile

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cliprd.data import tables
from cliprd.errors import InputError
from cliprd.params import Data


def read(path, separator="\t", **options):
    return list(tables.rows(str(path), Data(kind="csv", path=str(path), csv_separator=separator, **options)))


def captions(path, separator="\t", **options):
    return [[caption.decode() for caption in row.captions] for row in read(path, separator, **options)]


def refused(path, content, separator="\t", **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read(path, separator, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


cells = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells | st.just("two\nlines") | st.just('say "hi"')), min_size=1, max_size=6))
@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
def test_what_pandas_writes_is_read_as_pandas_reads_it(tmp_path_factory, separator, rows):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    pandas.DataFrame(rows, columns=["filepath", "title"]).to_csv(path, sep=separator, index=False)
    theirs = pandas.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    ours = read(path, separator)
    assert [row.name for row in ours] == list(theirs["filepath"])
    assert [list(row.captions) for row in ours if "caption_lists" not in row.notes] == [
        [title.encode()] for title, row in zip(theirs["title"], ours, strict=True) if "caption_lists" not in row.notes
    ]


@pytest.mark.parametrize("word", ["NA", "null", "nan", "None", "007", "1e5", "1.0", "TRUE", "-", "#N/A", "=1+1"])
def test_words_like_null_stay_text(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"filepath\ttitle\na.png\t{word}\n")
    assert captions(tmp_path / "t.csv") == [[word]]


OPEN = {
    "to the end": 'filepath\ttitle\na.png\tx\nb.png\t"wide\nc.png\ty\n',
    "last row without a line end": 'filepath\ttitle\na.png\tx\nb.png\t"wide',
    "to the next stray quote": 'filepath\ttitle\na.png\tx\nb.png\t"wide\nc.png\t"y\nd.png\tz\n',
    "to a quote at a line's end": 'filepath\ttitle\na.png\tx\nb.png\t"wide\nc.png\ty 5"\nd.png\tz\n',
    "more columns": 'filepath\ttitle\tn\na.png\tx\t1\nb.png\t"wide\t2\nc.png\ty"\t3\nd.png\tz\t4\n',
    "the caption first": 'title\tfilepath\nx\ta.png\n"wide\tb.png\ny"\tc.png\nz\td.png\n',
    "a backslash before a quote": 'filepath\ttitle\na.png\tx\nb.png\t"a \\"big\\" cat"\n',
    "text behind a quoted cell": 'filepath\ttitle\na.png\tx\nb.png\t"a" cat\n',
    "beyond the longest field": 'filepath\ttitle\na.png\tx\nb.png\t"wide\n' + "c.png\ty\n" * 30_000,
}


@pytest.mark.parametrize("content", OPEN.values(), ids=OPEN)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_unclosed_quote_is_refused_with_its_line(tmp_path, content, end):
    line = 2 if content.startswith("title") else 3
    text = refused(tmp_path / "t.csv", content.replace("\n", end))
    line += content.startswith("title")
    assert f"t.csv:{line}: a quote that opens in this row is not closed" in text
    assert "data.csv_quoting=none" in text


def test_csv_quoting_none_keeps_quotes(tmp_path):
    (tmp_path / "t.csv").write_text(OPEN["to the next stray quote"])
    assert captions(tmp_path / "t.csv", csv_quoting="none") == [["x"], ['"wide'], ['"y'], ["z"]]


def test_quotes_within_a_cell_and_doubled_ones(tmp_path):
    (tmp_path / "t.csv").write_text('filepath,title\na.png,a 5" disc\nb.png,"say ""hi"", you"\nc.png,""""\n')
    assert captions(tmp_path / "t.csv", ",") == [['a 5" disc'], ['say "hi", you'], ['"']]


def test_fields_over_several_lines_are_counted_and_lines_stay_right(tmp_path):
    (tmp_path / "t.csv").write_text('filepath,title\na.png,"one\ntwo, three"\n\nb.png,x\n')
    first, second = read(tmp_path / "t.csv", ",")
    assert first.notes == ("rows", "multi_line_fields")
    assert (first.source[-2:], second.source[-2:]) == (":2", ":5")
    assert second.notes == ("rows",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_that_are_read(tmp_path, encoding, end):
    (tmp_path / "t.csv").write_bytes(f'"filepath"\t title {end}a.png\tgr\xfcn 日本{end}'.encode(encoding))
    assert captions(tmp_path / "t.csv") == [["gr\xfcn 日本"]]


def test_unsupported_encodings_are_named(tmp_path):
    table = "filepath\ttitle\na.png\tgr\xfcn\n"
    assert "iconv -f UTF-16LE" in refused(tmp_path / "t.csv", table.encode("utf-16-le"))
    assert "iconv -f UTF-16BE" in refused(tmp_path / "t.csv", table.encode("utf-16-be"))
    assert "UTF-32" in refused(tmp_path / "t.csv", table.encode("utf-32"))
    assert "t.csv is damaged" in refused(tmp_path / "t.csv", table.encode("utf-16")[:-1])
    (tmp_path / "t.csv").write_bytes(table.encode("latin-1"))
    assert read(tmp_path / "t.csv")[0].captions == (b"gr\xfcn",)  # set aside by the next check, which says why


def test_wrong_headers_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    assert "t.csv is empty" in refused(path, "")
    assert "2 columns 'title'" in refused(path, "filepath\ttitle\ttitle\na\tb\tc\n")
    assert "no column 'title'; it has 'filepath', 'text'" in refused(path, "filepath\ttext\na\tb\n")
    path.write_text("filepath\ttitle\n")
    assert read(path) == []
    path.write_text("\n")
    assert "t.csv is empty" in refused(path, "\n")


@pytest.mark.parametrize(("there", "name"), [(",", "comma"), (";", "semicolon"), ("|", "bar"), ("\t", "tab")])
def test_a_wrong_separator_is_named(tmp_path, there, name):
    given = "," if there == "\t" else "\t"
    text = refused(tmp_path / "t.csv", f"filepath{there}title\na.png{there}x\n", given)
    assert f"separated by a {name}" in text


def test_ragged_rows_and_nul_bytes_are_set_aside(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"filepath,title\na.png,x, y\nb.png\nc.png,z\0\n\0\0\0\0\n , \nd.png,ok\n")
    rows = read(tmp_path / "t.csv", ",")
    assert [row.fault[0] if row.fault else None for row in rows] == [
        "ragged_row",
        "ragged_row",
        "nul_byte",
        "ragged_row",
        None,
    ]
    assert "3 fields, the header has 2" in rows[0].fault[1]


def test_a_list_in_a_cell_is_its_captions(tmp_path):
    (tmp_path / "t.csv").write_text(
        'filepath\ttitle\na.png\t[\'x\', "y\'s"]\nb.png\t["x"]\nc.png\t[a dog]\nd.png\t[1]\n'
    )
    assert captions(tmp_path / "t.csv") == [["x", "y's"], ["x"], ["[a dog]"], ["[1]"]]


def test_compressed_tables_and_other_containers(tmp_path):
    content = b"filepath\ttitle\na.png\tx\n"
    for ending, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        for name in (f"t.csv.{ending}", "named-plainly.csv"):
            (tmp_path / name).write_bytes(pack(content))
            assert captions(tmp_path / name) == [["x"]]
        assert "is damaged" in refused(tmp_path / "cut.csv", pack(content * 99)[:-9])
    with zipfile.ZipFile(tmp_path / "z.csv", "w") as archive:
        archive.writestr("t.csv", content)
    assert "ZIP archive" in refused(tmp_path / "z.csv", (tmp_path / "z.csv").read_bytes())
    assert "zstd -d" in refused(tmp_path / "t.csv", b"\x28\xb5\x2f\xfd" + bytes(40))
    assert "Parquet" in refused(tmp_path / "t.csv", b"PAR1" + bytes(40))


@pytest.mark.parametrize("separator", ["", ",,", '"', "\n", "\r", "\0"])
def test_invalid_separators_are_refused(separator):
    with pytest.raises(ValidationError, match="must be one character"):
        Data(csv_separator=separator)


@pytest.mark.parametrize("before", ["sep=,", '"sep=,"', "SEP=,", "", "  ", "\n\nsep=,\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_excels_separator_line_is_skipped(tmp_path, before, encoding):
    text = f"{before}\r\nfilepath,title\r\na.png,x\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert captions(tmp_path / "t.csv", ",") == [["x"]]
    assert read(tmp_path / "t.csv", ",")[0].source.endswith(f"t.csv:{len(text.splitlines())}")


def test_spaces_after_separators_are_detected_from_the_header(tmp_path):
    (tmp_path / "t.csv").write_text('filepath, title\na.png, "a cat, black"\nb.png, a dog\n')
    assert captions(tmp_path / "t.csv", ",") == [["a cat, black"], ["a dog"]]
    (tmp_path / "t.csv").write_text("title,filepath\nx, a.png\n")
    assert read(tmp_path / "t.csv", ",")[0].name == " a.png", "a file may be called so"


@pytest.mark.parametrize(("there", "name"), [(",", "comma"), (";", "semicolon"), ("|", "bar")])
def test_a_wrong_separator_is_named_if_all_cells_are_quoted(tmp_path, there, name):
    text = refused(tmp_path / "t.csv", there.join(['"filepath"', '"title"']) + "\n")
    assert f"separated by a {name}" in text
    assert "csv_quoting" not in text


def test_a_similar_column_name_is_suggested(tmp_path):
    assert "'data.csv_image_key=FilePath'" in refused(tmp_path / "t.csv", "FilePath\ttitle\n")
    assert "'data.csv_caption_key=titles'" in refused(tmp_path / "t.csv", "filepath\ttitles\n")
    assert "first line names the columns" in refused(tmp_path / "t.csv", "# made by me\nfilepath\ttitle\n")


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("['a cat' 'a dog']", ["a cat", "a dog"]),  # str of a numpy array, as pandas writes parquet's lists
        ("['a cat'\n \"the dog's\"]", ["a cat", "the dog's"]),
        ('["a cat", null, "caf\\u00e9"]', ["a cat", "café"]),
        ("['a\\'b', None]", ["a'b"]),
        ("[]", []),
        ("[ ]", []),
        ("[nan]", []),
        ("['a''b']", ["['a''b']"]),
        ("[a cat]", ["[a cat]"]),
        ("['a', 3]", ["['a', 3]"]),
        ("['a'] and ['b']", ["['a'] and ['b']"]),
    ],
)
def test_lists_written_by_python_json_and_numpy_are_read(tmp_path, cell, found):
    pandas.DataFrame([["a.png", cell]], columns=["filepath", "title"]).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    assert captions(tmp_path / "t.tsv") == [found]


def test_an_unclosed_quote_is_detected_by_swallowed_rows_without_endings(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
    text = refused(tmp_path / "t.csv", 'filepath,title\na,"open\nb,two\nc,three"\n', ",")
    assert "t.csv:2: a quote that opens in this row is not closed before line 4" in text
