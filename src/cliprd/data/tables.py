"""Rows of a table of image paths and captions, as open_clip's users have them.

Python's `csv` in strict mode reads them, not pandas: it gives each row's line number, refuses text after a closing
quote, which pandas joins, and turns nothing into numbers or missing values. On well-formed tables both give the same
rows, which a test checks.
"""

from __future__ import annotations

import ast
import csv
import difflib
import io
import itertools
import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from cliprd import storage
from cliprd.data.endings import PICTURES
from cliprd.data.raw import Raw, safe_key
from cliprd.data.unpacking import DAMAGED, unpacked
from cliprd.errors import InputError
from cliprd.names import visible
from cliprd.params import Data

_SEPARATORS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar"}
_SETTINGS = "Its first line names the columns: set data.csv_image_key, data.csv_caption_key and data.csv_separator."
_QUOTES = (
    "Write a cell that holds quotes in quotes, its own doubled; "
    "if quotes are plain characters in this table: --set data.csv_quoting=none."
)
_EXCEL = re.compile(r"\"?sep=.?\"?", re.IGNORECASE)  # Excel's optional first line, which names the separator
_ITEM = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|None|null|nan|NaN""", re.DOTALL)
_LIST = re.compile(rf"\[\s*(?:(?:{_ITEM.pattern})(?:\s*,\s*|\s+|\s*(?=\])))*\]", re.DOTALL)


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        source: `table:line` of the row's start.
        name: its image cell.
        image: path or URL of that image; None for an empty cell.
        captions: of its caption cell, encoded; UTF-8 if the table is.
        fault: (code, detail) of a problem in the table itself.
        notes: see `Raw`.
    """

    source: str
    name: str
    image: str | None
    captions: tuple[bytes, ...]
    fault: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()


def samples(url: str, data: Data) -> Iterator[Raw]:
    """Records of one table, streaming; consecutive rows of one image (COCO's five captions) form one record.

    Raises:
        InputError: missing, damaged, without the columns, or with an unclosed quote (the message names the line).
    """
    for _, group in itertools.groupby(rows(url, data), key=lambda row: (row.fault is None and row.image) or row.source):
        members = list(group)
        first = members[0]
        key = safe_key(first.name or first.source)
        notes = tuple(note for row in members for note in row.notes)
        image, fault = (None, first.fault) if first.fault else _image(first)
        captions = tuple(caption for row in members for caption in row.captions)
        yield Raw(first.source, key, image, captions, fault, (first.name,) if first.name else (), notes)


def rows(url: str, data: Data) -> Iterator[TableRow]:
    """Rows of a table in order, in constant memory.

    Raises:
        InputError: see `samples`.
    """
    with storage.open_stream(url) as raw:
        try:
            lines = _Lines(_text(url, unpacked(url, raw)))
            first = lines.skip_to_header()
            reader = csv.reader(
                lines,
                delimiter=data.csv_separator,
                quoting=csv.QUOTE_NONE if data.csv_quoting == "none" else csv.QUOTE_MINIMAL,
                skipinitialspace=f"{data.csv_separator} " in first,
                strict=True,
            )
            header = _header(url, reader, lines, first, data)
            columns = _columns(url, header, first, data)
            while (cells := _next(url, reader, lines)) is not None:
                if any(cell.strip() for cell in cells):
                    yield _row(url, cells, header, columns, lines, data)
        except UnicodeError as error:
            raise InputError(f"{url} is damaged: {error}.", "Write this table as UTF-8.") from error
        except DAMAGED as error:
            raise InputError(f"{url} is damaged: {error}.", "Build this table again.") from error


def _text(url: str, stream: io.BufferedReader) -> IO[str]:
    """Decode UTF-8, or UTF-16 with a byte-order mark. Invalid UTF-8 becomes surrogates: file names may contain it."""
    head = stream.peek(512)[:512]
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        raise InputError(f"{url} is UTF-32.", f"Convert it: iconv -f UTF-32 -t UTF-8 {url}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return io.TextIOWrapper(stream, encoding="utf-16", newline="")
    if b"\0" in head[:4]:
        form = "UTF-16LE" if b"\0" in head[1:4:2] else "UTF-16BE"
        raise InputError(
            f"{url} holds NUL bytes: it is {form} without a byte-order mark, or no table.",
            f"Convert it: iconv -f {form} -t UTF-8 {url}",
        )
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Lines:
    """Counts the lines of a text and keeps those of the current row."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._ahead = ""
        self.number = 0
        self.row: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def skip_to_header(self) -> str:
        """Skip blank lines and Excel's `sep=;`. Returns the next line without consuming it."""
        for line in self._text:
            if line.strip() and not _EXCEL.fullmatch(line.strip()):
                self._ahead = line
                break
            self.number += 1
        return self._ahead

    def __next__(self) -> str:
        line, self._ahead = self._ahead or next(self._text), ""
        self.number += 1
        self.row.append(line)
        return line


def _next(url: str, reader: Iterator[list[str]], lines: _Lines) -> list[str] | None:
    lines.row.clear()
    start = lines.number + 1
    try:
        return next(reader, None)
    except csv.Error as error:
        if "field limit" in str(error) and '"' not in "".join(lines.row):
            raise InputError(f"{url}:{start} has a field that is too long: {error}.", "Is it a table?") from error
        escaped = " A backslash does not escape a quote in CSV." if '\\"' in "".join(lines.row) else ""
        raise InputError(
            f"{url}:{start}: a quote that opens in this row is not closed ({error}).{escaped}", _QUOTES
        ) from error


def _header(url: str, reader: Iterator[list[str]], lines: _Lines, first: str, data: Data) -> list[str]:
    try:
        return [name.strip() for name in _next(url, reader, lines) or ()]
    except InputError as error:  # quotes look misplaced if the separator is wrong
        if remedy := _other_separator(first, data):
            raise InputError(f"{url} is not separated by {_shown(data.csv_separator)}.", remedy) from error
        raise


def _columns(url: str, header: list[str], first: str, data: Data) -> tuple[int, int]:
    """Indices of the image and caption columns."""
    if not header:
        raise InputError(f"{url} is empty.", "Build this table again.")
    required = {"csv_image_key": data.csv_image_key, "csv_caption_key": data.csv_caption_key}
    for key, column in required.items():
        if header.count(column) > 1:
            raise InputError(f"{url} has {header.count(column)} columns '{column}'.", "Rename all but one.")
        if column not in header:
            names = ", ".join(repr(visible(name)) for name in header[:20])
            folded = {name.casefold(): name for name in header}
            near = difflib.get_close_matches(column.casefold(), folded, n=1, cutoff=0.8)
            remedy = f"Did you mean --set 'data.{key}={folded[near[0]]}'?" if near else _SETTINGS
            raise InputError(
                f"{url} has no column '{column}'; it has {names}.", _other_separator(first, data) or remedy
            )
    return header.index(data.csv_image_key), header.index(data.csv_caption_key)


def _other_separator(first: str, data: Data) -> str:
    """The remedy if the first line has the two columns with another separator; else empty."""
    for separator, name in _SEPARATORS.items():
        cells = [cell.strip().strip('"') for cell in first.split(separator)]
        if separator != data.csv_separator and {data.csv_image_key, data.csv_caption_key} <= set(cells):
            return f"Its columns are separated by {name}: --set 'data.csv_separator=\"{repr(separator)[1:-1]}\"'"
    return ""


def _shown(separator: str) -> str:
    return _SEPARATORS.get(separator, repr(separator))


def _row(
    url: str, cells: list[str], header: list[str], columns: tuple[int, int], lines: _Lines, data: Data
) -> TableRow:
    start = lines.number - len(lines.row) + 1
    source = f"{url}:{start}"
    notes: tuple[str, ...] = ("rows",)
    if len(lines.row) > 1:
        notes += ("multi_line_fields",) * sum("\n" in cell or "\r" in cell for cell in cells)
        _refuse_swallowed(source, cells, len(header), columns[0], lines, data)
    if len(cells) != len(header):
        detail = f"{len(cells)} fields, the header has {len(header)}: {visible(str(cells))[:200]}"
        return TableRow(source, "", None, (), ("ragged_row", detail), notes)
    if any("\0" in line for line in lines.row):
        return TableRow(source, "", None, (), ("nul_byte", visible(str(cells))[:200]), notes)
    name = cells[columns[0]]
    captions = _listed(cells[columns[1]])
    if captions is None:
        captions = [cells[columns[1]]]
    else:
        notes += ("caption_lists",)
    encoded = tuple(
        text.encode("utf-8", "surrogatepass" if "caption_lists" in notes else "surrogateescape") for text in captions
    )
    return TableRow(
        source, name, _image_url(url, name), encoded, None if name.strip() else ("missing_image", "no name"), notes
    )


def _refuse_swallowed(source: str, cells: list[str], width: int, column: int, lines: _Lines, data: Data) -> None:
    """Refuse a multi-line row that contains several rows, as a stray quote character causes.

    A line counts as a row of its own if its image cell has a picture's ending or names an existing file.
    """
    table = source.rsplit(":", 1)[0]
    endings = (*PICTURES, *filter(None, [os.path.splitext(cells[column])[1].lower()] if column < len(cells) else []))

    def is_row(line: str) -> bool:
        cells_of_line = line.rstrip("\r\n").split(data.csv_separator)
        name = cells_of_line[column].strip('" ') if len(cells_of_line) == width else ""
        image = _image_url(table, name)
        return name.lower().endswith(endings) or (
            image is not None and not storage.is_s3(image) and os.path.isfile(image)
        )

    swallowed = sum(map(is_row, lines.row))
    if swallowed > 1:
        raise InputError(
            f"{source}: a quote that opens in this row is not closed before line {lines.number}, {swallowed} rows on.",
            _QUOTES,
        )


def _listed(text: str) -> list[str] | None:
    """The captions of a list written as text by Python, JSON or numpy (which writes no commas), without missing values.

    None if the text is no list.
    """
    text = text.strip()
    if not _LIST.fullmatch(text):
        return None
    try:
        return [_literal(item[1]) for item in _ITEM.finditer(text) if item[1]]
    except (ValueError, SyntaxError, MemoryError):
        return None


def _literal(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:  # Python's escapes differ from JSON's
        return str(ast.literal_eval(text))


def _image_url(table: str, name: str) -> str | None:
    if not name.strip():
        return None
    if name.startswith(("/", storage.SCHEME)):
        return name
    url = storage.join(table.rsplit("/", 1)[0] if "/" in table else ".", name)
    if storage.is_s3(url):  # S3 does not resolve `..`, `.` and `//`
        bucket, _, key = url.removeprefix(storage.SCHEME).partition("/")
        key = posixpath.normpath(key)
        return url if key.startswith("..") else f"{storage.SCHEME}{bucket}/{key}"
    return url


def _image(row: TableRow) -> tuple[bytes | None, tuple[str, str] | None]:
    """The bytes of a row's image, or (code, detail) of why there are none."""
    url = row.image or ""
    try:
        image = storage.read_bytes(url)
        if image is None and row.name != row.name.strip():
            image = storage.read_bytes(f"{url[: len(url) - len(row.name)]}{row.name.strip()}")
    except storage.BadAddress as error:
        return None, ("missing_image", str(error))
    if image is not None:
        return image, None
    if row.name.startswith("file://"):
        return None, ("missing_image", f"{visible(row.name)} is a URL: write the path alone")
    if "://" in row.name and not storage.is_s3(row.name):
        return None, ("missing_image", f"{visible(row.name)} is a URL: download the pictures first (img2dataset)")
    hint = "" if row.name == row.image else "; a path is relative to its table"
    hint += "; folders in a path are separated by /" if "\\" in row.name else ""
    return None, ("missing_image", f"{visible(url)} does not exist{hint}")
