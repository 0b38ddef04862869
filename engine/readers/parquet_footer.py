"""What a Parquet file says of itself, found without the reader that would act on it.

Arrow runs code of registered extension types as soon as a file is opened, takes the memory that the
headers of pages ask for, and ends the process when it is asked about a column that is encrypted
(pyarrow 26). So what is unsafe is found here before.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

_END_BYTES: Final = 8
"""Behind the footer: its length, and PAR1."""
_HEADER_BYTES: Final = 256, 2**24
"""Of a page: what is read first, and what Arrow reads at most."""
_EXTENSION: Final = b"ARROW:extension:name"
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{%d,}" % (len(_EXTENSION) * 4 // 3))
_STRUCT: Final = 12
"""Kind of a value in Thrift's compact protocol."""


@dataclass(frozen=True)
class Group:
    """A row group, by the headers of its pages."""

    unpacked_bytes: int
    """Of all its pages; a value takes a byte at least."""
    row_bytes: int
    """More than a row holds, unless it has far more values than others: no value is larger than
    its page, or than the page with the dictionary."""


class Footer:
    """What a file's footer and the headers of its pages say.

    Raises:
        ValueError: they are none, or anything is encrypted.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self._footer = _footer(stream)
            try:
                # Numbers of fields are those of parquet.thrift, in Apache Parquet's format.
                groups = _structs(_Compact(self._footer).struct(), 4)
                self.groups = [_group(stream, group) for group in groups]
            except (LookupError, AttributeError, TypeError, RecursionError):
                raise ValueError("its footer is damaged") from None

    @property
    def unpacked_bytes(self) -> int:
        """Of the whole file."""
        return sum(group.unpacked_bytes for group in self.groups)

    @property
    def may_hold_extension_types(self) -> bool:
        """Whether anything in it reads as an Arrow schema that names one.

        The schema is the base64 value of some key. Whatever stands around it, its characters stand
        together, so all that may be base64 is looked at, in each of the four alignments.
        """
        texts = _BASE64.findall(self._footer)
        found = (_decoded(text[start:]) for text in texts for start in range(4))
        return _EXTENSION in self._footer or any(_EXTENSION in each for each in found)


def num_rows(path: Path) -> int:
    """Rows of a file, by its footer alone.

    Raises:
        ValueError: it has none.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        try:
            groups = _structs(_Compact(_footer(stream)).struct(), 4)
            return sum(max(0, int(group[3])) for group in groups)
        except (LookupError, AttributeError, TypeError, RecursionError):
            raise ValueError("its footer is damaged") from None


def _footer(stream: BinaryIO) -> bytes:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END_BYTES))
    end = stream.read(_END_BYTES)
    length = int.from_bytes(end[:4], "little")
    if end[4:] == b"PARE":
        raise ValueError("the file is encrypted")
    if end[4:] != b"PAR1" or length + _END_BYTES > size:
        raise ValueError("it does not end in a footer")
    stream.seek(size - _END_BYTES - length)
    return stream.read(length)


def _decoded(text: bytes) -> bytes:
    """Base64 whose end may be missing."""
    return b64decode(text + b"A" * (-len(text) % 4))


def _group(stream: BinaryIO, group: dict[int, Any]) -> Group:
    num_rows = max(1, group[3])
    unpacked_bytes = row_bytes = 0
    for column in _structs(group, 1):
        if 8 in column:
            raise ValueError("a column is encrypted")
        num_values = largest = 0
        for size, values in _pages(stream, column[3]):
            unpacked_bytes += max(size, values)
            num_values += values
            largest = max(largest, size)
        row_bytes += largest * max(1, -(-num_values // num_rows))
    return Group(unpacked_bytes, row_bytes)


def _pages(stream: BinaryIO, chunk: dict[int, Any]) -> Iterator[tuple[int, int]]:
    """Unpacked size and number of values of each page of a column chunk."""
    starts = chunk[9], chunk.get(11, 0)  # of data, and of the dictionary where there is one
    at = min(start for start in starts if start > 0)
    end = at + chunk[7]
    while at < end:
        header, length = _page_header(stream, at)
        values = header.get(5) or header.get(8) or {}  # of a data page, in either version
        yield max(0, header[2]), max(0, values.get(1, 0))
        at += length + max(0, header[3])


def _page_header(stream: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """A page's header, and how long it is."""
    size, most = _HEADER_BYTES
    while True:
        stream.seek(at)
        data = stream.read(size)
        try:
            compact = _Compact(data)
            return compact.struct(), compact.at
        except IndexError:
            if len(data) < size or size >= most:
                raise
            size *= 16


def _structs(fields: dict[int, Any], number: int) -> list[dict[int, Any]]:
    """The structs that a field lists."""
    if number not in fields:
        return []
    kind, values = fields[number]
    if values and kind != _STRUCT:
        raise ValueError("its footer is damaged")
    return values


class _List(NamedTuple):
    kind: int
    values: list[Any]


class _Compact:
    """Thrift's compact protocol: structs as dicts by number of field.

    Raises:
        ValueError, IndexError: the bytes are something else.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in fields:  # readers differ on which one counts
                raise ValueError("a field comes twice")
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):  # a truth value in a list takes a byte
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._natural())
        if kind in (9, 10):
            return self._list()
        if kind == 11:
            return self._map()
        if kind == _STRUCT:
            return self.struct()
        raise ValueError(f"a value of kind {kind}")

    def _list(self) -> _List:
        head = self._byte()
        num = head >> 4 if head >> 4 < 15 else self._natural()
        return _List(head & 15, [self._value(head & 15) for _ in range(num)])

    def _map(self) -> list[Any]:
        num = self._natural()
        kinds = self._byte() if num else 0
        return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(num)]

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, num: int) -> bytes:
        self.at += num
        if self.at > len(self.data):
            raise IndexError
        return self.data[self.at - num : self.at]

    def _natural(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return number | byte << shift

    def _integer(self) -> int:
        number = self._natural()  # zigzag: 0, -1, 1, -2 …
        return number >> 1 ^ -(number & 1)
