"""Rows of a table of image paths and captions, as open_clip's users have them.

Python's `csv` in strict mode reads them and not pandas: it says in which line a row stands and refuses what follows a
closed quote, where pandas joins it; and nothing becomes a number or a missing value. On sound tables both give the
same, which a test holds.
"""

from __future__ import annotations

import ast
import csv
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from cliprd import storage
from cliprd.data.raw import PICTURES, Raw, safe_key
from cliprd.data.unpacking import DAMAGED, unpacked
from cliprd.errors import InputError
from cliprd.names import visible
from cliprd.params import Data

_SEPARATORS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar"}
_SETTINGS = "Set data.csv_image_key, data.csv_caption_key and data.csv_separator."
_QUOTES = (
    "Write a cell that holds quotes in quotes, its own doubled; "
    "where quotes mean nothing in the whole table: --set data.csv_quoting=none."
)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        source: the table and the line in which the row begins.
        name: its image cell.
        image: where that image should lie; None for an empty cell.
        captions: of its caption cell, as UTF-8 where the table is.
        fault: why the row cannot be used, where that is known from the table alone.
        notes: see `Raw`.
    """

    source: str
    name: str
    image: str | None
    captions: tuple[bytes, ...]
    fault: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()


def samples(url: str, data: Data) -> Iterator[Raw]:
    """Records of one table, streaming; neighbouring rows of one image (COCO's five captions) are one.

    Raises:
        InputError: missing, damaged, without the columns, or with a quote that is not closed (the line is named).
    """
    for _, group in itertools.groupby(rows(url, data), key=lambda row: (row.fault is None and row.image) or row.source):
        members = list(group)
        first = members[0]
        key = safe_key(first.name or first.source)
        notes = tuple(note for row in members for note in row.notes)
        image, fault = (None, first.fault) if first.fault else _image(first)
        captions = tuple(caption for row in members for caption in row.captions)
        yield Raw(first.source, key, image, captions, fault, (first.name,) if first.name else (), notes)


def rows(url: str, data: Data) -> Iterator[Row]:
    """Rows of a table in order, in constant memory.

    Raises:
        InputError: see `samples`.
    """
    with storage.open_stream(url) as raw:
        try:
            lines = _Lines(_text(url, unpacked(url, raw)))
            reader = csv.reader(
                lines,
                delimiter=data.csv_separator,
                quoting=csv.QUOTE_NONE if data.csv_quoting == "none" else csv.QUOTE_MINIMAL,
                strict=True,
            )
            header = [name.strip() for name in _next(url, reader, lines) or ()]
            columns = _columns(url, header, data)
            while (cells := _next(url, reader, lines)) is not None:
                if any(cell.strip() for cell in cells):
                    yield _row(url, cells, header, columns, lines, data)
        except UnicodeError as error:
            raise InputError(f"{url} is damaged: {error}.", "Write this table as UTF-8.") from error
        except DAMAGED as error:
            raise InputError(f"{url} is damaged: {error}.", "Build this table again.") from error


def _text(url: str, stream: io.BufferedReader) -> IO[str]:
    """UTF-8, or UTF-16 that says so; bytes that are no UTF-8 are kept, for the quarantine and for names of files."""
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
    """Lines of a text, counted; those of the row that is being read are kept."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self.number = 0
        self.row: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._text)
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
        escaped = " It holds a backslash before a quote, which is no CSV." if '\\"' in "".join(lines.row) else ""
        raise InputError(
            f"{url}:{start}: a quote that opens in this row is not closed ({error}).{escaped}", _QUOTES
        ) from error


def _columns(url: str, header: list[str], data: Data) -> tuple[int, int]:
    """Places of the image's and the caption's column."""
    if not header:
        raise InputError(f"{url} is empty.", "Build this table again.")
    wanted = (data.csv_image_key, data.csv_caption_key)
    for column in wanted:
        if header.count(column) > 1:
            raise InputError(f"{url} has {header.count(column)} columns '{column}'.", "Rename all but one.")
        if column not in header:
            names = ", ".join(repr(visible(name)) for name in header[:20])
            raise InputError(
                f"{url} has no column '{column}'; it has {names}.", _other_separator(header, wanted, data) or _SETTINGS
            )
    return header.index(wanted[0]), header.index(wanted[1])


def _other_separator(header: list[str], wanted: Sequence[str], data: Data) -> str:
    line = data.csv_separator.join(header)
    for separator, name in _SEPARATORS.items():
        cells = [cell.strip().strip('"') for cell in line.split(separator)]
        if separator != data.csv_separator and all(column in cells for column in wanted):
            return f"Its columns are separated by {name}: --set 'data.csv_separator=\"{repr(separator)[1:-1]}\"'"
    return ""


def _row(url: str, cells: list[str], header: list[str], columns: tuple[int, int], lines: _Lines, data: Data) -> Row:
    start = lines.number - len(lines.row) + 1
    source = f"{url}:{start}"
    notes: tuple[str, ...] = ("rows",)
    if len(lines.row) > 1:
        notes += ("multi_line_fields",) * sum("\n" in cell or "\r" in cell for cell in cells)
        _refuse_swallowed(source, cells, len(header), columns[0], lines, data)
    if len(cells) != len(header):
        detail = f"{len(cells)} fields, the header has {len(header)}: {visible(str(cells))[:200]}"
        return Row(source, "", None, (), ("ragged_row", detail), notes)
    if any("\0" in line for line in lines.row):
        return Row(source, "", None, (), ("nul_byte", visible(str(cells))[:200]), notes)
    name = cells[columns[0]]
    captions = _listed(cells[columns[1]])
    if captions is not None:
        notes += ("caption_lists",)
    encoded = tuple(text.encode("utf-8", "surrogateescape") for text in captions or (cells[columns[1]],))
    return Row(source, name, _place(url, name), encoded, None if name.strip() else ("missing_image", "no name"), notes)


def _refuse_swallowed(source: str, cells: list[str], width: int, column: int, lines: _Lines, data: Data) -> None:
    """A quote that was never meant as one ends at the next that happens to stand before a separator or a line's end.

    Then more than one of the lines in between is a row by itself.
    """
    endings = (*PICTURES, *filter(None, [os.path.splitext(cells[column])[1].lower()] if column < len(cells) else []))
    alone = [line.rstrip("\r\n").split(data.csv_separator) for line in lines.row]
    found = sum(len(line) == width and line[column].strip('" ').lower().endswith(endings) for line in alone)
    if found > 1:
        raise InputError(
            f"{source}: a quote that opens in this row is not closed before line {lines.number}, {found} rows further.",
            _QUOTES,
        )


def _listed(text: str) -> list[str] | None:
    """The captions in a list that was written as text (pandas and JSON do so); None where it is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return values if values and all(isinstance(value, str) for value in values) else None


def _place(table: str, name: str) -> str | None:
    if not name.strip():
        return None
    if name.startswith(("/", storage.SCHEME)):
        return name
    return storage.join(table.rsplit("/", 1)[0] if "/" in table else ".", name)


def _image(row: Row) -> tuple[bytes | None, tuple[str, str] | None]:
    """The bytes of a row's image, or why there are none."""
    place = row.image or ""
    try:
        image = storage.read_bytes(place)
        if image is None and row.name != row.name.strip():
            image = storage.read_bytes(f"{place[: len(place) - len(row.name)]}{row.name.strip()}")
    except storage.BadAddress as error:
        return None, ("missing_image", str(error))
    if image is not None:
        return image, None
    if "://" in row.name and not storage.is_s3(row.name):
        return None, ("missing_image", f"{visible(row.name)} is an address: fetch the pictures first (img2dataset)")
    relative = "" if row.name == row.image else "; a path is relative to its table"
    return None, ("missing_image", f"{visible(place)} does not exist{relative}")
