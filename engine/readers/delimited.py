"""CSV and TSV: a header that names the keys, then a row each; every value is text.

A quoted field may hold line ends, so such a file can't be cut, and a quote that is never closed
takes all that follows with it: the file is broken from that row on.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from engine import schema
from engine.errors import BrokenFileError
from engine.formats import json_text
from engine.readers.jsonl import BOM, BUFFER_BYTES
from engine.readers.line import Line, too_large

_SEPARATORS: Final = {"csv": (",", ";", "\t"), "tsv": ("\t",)}
"""The one that gives most names is taken: spreadsheets write `;` where a comma is in numbers."""
_NAME_LENGTH: Final = 100
"""Longer than any column's name, shorter than most texts."""


def read_delimited(
    path: Path, stream: BinaryIO, content: str, max_row_bytes: int
) -> Iterator[Line]:
    """Each row as the JSON that it would be, with the line it starts on.

    Args:
        path: of the file, for messages.
        stream: its text, from its beginning.
        content: ``csv`` or ``tsv``.
        max_row_bytes: larger rows are rejected.

    Raises:
        BrokenFileError: there is no header, or a quote is not closed or stands where none may.
    """
    lines = _Lines(stream, max_row_bytes)
    before = csv.field_size_limit(max_row_bytes + BUFFER_BYTES)  # lines are watched instead
    try:
        header, separator = _header(path, lines, _SEPARATORS[content])
        for fields in _records(path, lines, separator):
            if fields is None:
                yield too_large(lines.first, max_row_bytes)
            elif fields and (len(fields) > 1 or fields[0].strip() or lines.quotes):
                yield _line(lines.first, header, fields, max_row_bytes)
    finally:
        csv.field_size_limit(before)


def _line(number: int, header: list[str], fields: list[str], max_row_bytes: int) -> Line:
    if len(fields) != len(header):
        detail = f"{len(fields)} fields, and the header has {len(header)}"
        return Line(number, None, None, schema.RAGGED_ROW, detail)
    row = dict(zip(header, fields, strict=True))
    raw = json_text(row)
    try:
        size = len(raw.encode())
    except UnicodeEncodeError:  # what is left of bytes that are no text
        return Line(number, None, None, schema.INVALID_UTF8, "a field is not valid UTF-8")
    if size > max_row_bytes:
        return too_large(number, max_row_bytes)
    return Line(number, raw, row, None, None)


# ── the header ───────────────────────────────────────────────────────────────────────────────────


def _header(path: Path, lines: _Lines, separators: tuple[str, ...]) -> tuple[list[str], str]:
    """Names of the columns, and what separates them."""
    text = ""
    while not text.strip():
        lines.begin()
        try:
            text = next(lines)
        except StopIteration:
            raise _broken(path, 1, "it is empty", _NEEDS_HEADER) from None
        except _TooLargeError:
            raise _broken(path, 1, "it does not begin with a header", _NEEDS_HEADER) from None
        if said := _SAID.fullmatch(text):  # spreadsheets say so in a line of its own
            separators, text = (said[1],), ""
    found = {each: names for each in separators if (names := _names(text, each))}
    if not found:
        raise _broken(path, lines.first, "its header cannot be read", _NEEDS_HEADER)
    separator = max(found, key=lambda each: len(found[each]))  # the first of equal ones
    names = found[separator]
    # pandas writes its index under no name.
    names = [name.strip() or f"unnamed_{place}" for place, name in enumerate(names, start=1)]
    if max(map(len, names)) > _NAME_LENGTH:
        raise _broken(path, lines.first, "it does not begin with a header", _NEEDS_HEADER)
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        what, fix = "its header is not valid UTF-8", "save it as UTF-8 (iconv mends it)"
        raise _broken(path, lines.first, what, fix) from None
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        fix = "write it again with a name of its own for each column"
        raise _broken(path, lines.first, f"it has several columns {again!r}", fix)
    return names, separator


def _names(text: str, separator: str) -> list[str]:
    """The header's fields; none where it cannot be read so."""
    try:
        (names,) = csv.reader([text], delimiter=separator, strict=True)
    except (csv.Error, ValueError):
        return []
    return names


_SAID: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_NEEDS_HEADER: Final = "its first line must name the columns: instruction,output"


def _broken(path: Path, line: int, what: str, fix: str) -> BrokenFileError:
    return BrokenFileError(
        f"a pool file is not a table that can be read: {what}",
        f"{path}, line {line}",
        fix,
        schema.BROKEN_FILE,
        line,
    )


# ── records ──────────────────────────────────────────────────────────────────────────────────────


def _records(path: Path, lines: _Lines, separator: str) -> Iterator[list[str] | None]:
    """Fields of each record; None for one that is too large."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLargeError:
            if not lines.skip_record():
                raise _unclosed(path, lines.first, _NEVER_CLOSED) from None
            fields = None
        except csv.Error as error:
            what = str(error).replace("unexpected end of data", _NEVER_CLOSED)
            raise _unclosed(path, lines.first, what) from None
        yield fields


_NEVER_CLOSED: Final = "a quote is never closed"


def _unclosed(path: Path, line: int, problem: str) -> BrokenFileError:
    fix = (
        "in a quoted field every quote is doubled, and a quote closes it; write it again so, or "
        "as .jsonl, where a bad line costs one row"
    )
    return _broken(path, line, f"{problem}, in the row that begins in line {line}", fix)


class _TooLargeError(Exception):
    """A record is over the limit."""


class _Lines:
    """Lines as csv wants them, the size of each record watched."""

    def __init__(self, stream: BinaryIO, max_row_bytes: int) -> None:
        self._stream, self._max = stream, max_row_bytes
        self._number = 0
        self.begin()

    def begin(self) -> None:
        """A record begins with the next line."""
        self.first = self._number + 1
        """The line that the record begins in."""
        self.quotes = self._size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = part = self._stream.readline(self._max + len(BOM) + len(b"\r\n"))
        if not line:
            raise StopIteration
        self._count(part)
        while not part.endswith(b"\n") and (part := self._stream.readline(BUFFER_BYTES)):
            self._count(part)
        self._number += 1
        if self._number == 1:
            line = line.removeprefix(BOM)
        if self._size > self._max + len(BOM) + len(b"\r\n"):
            raise _TooLargeError
        return line.decode("utf-8", "surrogateescape")

    def _count(self, part: bytes) -> None:
        self._size += len(part)
        self.quotes += part.count(b'"')

    def skip_record(self) -> bool:
        """Go to the end of a record that is too large: False if there is none.

        A record is over with the first line that leaves no quote open.
        """
        while self.quotes % 2:
            try:
                next(self)
            except StopIteration:
                return False
            except _TooLargeError:
                pass
        return True
