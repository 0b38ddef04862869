"""What an Arrow file says of itself, found without the reader that would act on it.

Arrow runs code of registered extension types as soon as it reads a schema, takes the memory that a
compressed buffer asks for, and takes a stream that was cut off between two batches for whole. So
the headers of all messages are looked at before.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

_MAGIC: Final = b"ARROW1"
_START: Final = len(_MAGIC) + 2
"""Where a file's messages start, behind its magic and padding; a stream's start at once."""
_NEXT: Final = b"\xff\xff\xff\xff"
_EXTENSION: Final = b"ARROW:extension:name"
_HEADER_BYTES: Final = 2**26
_DICTIONARY, _RECORDS = 2, 3
"""Kinds of messages, by their numbers in Message.fbs of the Arrow format, as those of fields."""


class Messages:
    """The messages of a file or a stream, by their headers.

    Raises:
        ValueError: there is no schema.
        OSError: the file cannot be read.
    """

    start = 0
    """Where the first message starts."""
    num_rows = 0
    num_batches = 0
    unpacked_bytes = 0
    """Of all buffers; a value takes a byte at least."""
    may_hold_extension_types = False
    problem: str | None = None
    """Why nothing can be read behind the last batch that was counted."""
    _has_schema = False

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            is_file = stream.read(_START).startswith(_MAGIC)
            self.start = _START if is_file else 0
            try:
                self._read(stream, size, _footer(stream, size) if is_file else None)
            except (struct.error, IndexError, OverflowError):
                self.problem = "a message is damaged"
            except ValueError as error:
                self.problem = str(error)
        if not self._has_schema:
            raise ValueError(self.problem or "it is empty")

    def _read(self, stream: BinaryIO, size: int, footer: tuple[int, bytes] | None) -> None:
        """Go through the messages, up to the mark behind the last."""
        at, end = self.start, size
        if footer is not None:
            end, schema = footer
            self.may_hold_extension_types = _EXTENSION in schema
        while footer is None or at < end:
            stream.seek(at)
            head = stream.read(8)
            length = int.from_bytes(head[4:], "little", signed=True)
            if len(head) < 8:
                raise ValueError("it is cut short")
            if head[:4] != _NEXT or not 0 <= length <= _HEADER_BYTES:
                raise ValueError("no message begins where one should")
            if not length:
                at += 8
                break
            metadata = stream.read(length)
            body = at + 8 + length
            message = _Table(metadata, *struct.unpack_from("<I", metadata))
            at = body + max(0, message.number(3, "<q"))
            if at > end:
                raise ValueError("it is cut short")
            self._count(stream, message, body)
        if at != end:
            raise ValueError("something stands behind its end")

    def _count(self, stream: BinaryIO, message: _Table, body: int) -> None:
        self.may_hold_extension_types |= _EXTENSION in message.data
        kind, header = message.number(1, "<B"), message.table(2)
        if kind in (_DICTIONARY, _RECORDS):
            batch = header.table(1) if kind == _DICTIONARY else header
            self.unpacked_bytes += _unpacked_bytes(stream, batch, body)
            if kind == _RECORDS:
                self.num_batches += 1
                self.num_rows += max(0, batch.number(0, "<q"))
        self._has_schema = True  # Arrow refuses whatever does not begin with it


def _footer(stream: BinaryIO, size: int) -> tuple[int, bytes]:
    """Where a file's footer starts, and all of it."""
    tail = 4 + len(_MAGIC)
    stream.seek(max(0, size - tail))
    end = stream.read()
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or _START + length + tail > size:
        raise ValueError("it does not end in a footer")
    start = size - tail - length
    stream.seek(start)
    return start, stream.read(length)


def _unpacked_bytes(stream: BinaryIO, batch: _Table, body: int) -> int:
    """Of one batch: its rows, the values of each column, and their buffers."""
    total = max(0, batch.number(0, "<q"))
    total += sum(max(0, length) for length, _ in batch.pairs(1))
    is_packed = bool(batch.place(3))
    for offset, length in batch.pairs(2):
        unpacked = length
        if is_packed and length >= 8 and offset >= 0:
            stream.seek(body + offset)
            unpacked = int.from_bytes(stream.read(8), "little", signed=True)  # -1: as it is
        total += max(0, length, unpacked)
    return total


class _Table:
    """A table of a flatbuffer: fields by number.

    Raises:
        struct.error: the bytes are something else.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self._at = data, at
        self._fields = at - self._read("<i", at)
        self._size = self._read("<H", self._fields)

    def _read(self, kind: str, at: int) -> int:
        if at < 0:
            raise struct.error
        return struct.unpack_from(kind, self.data, at)[0]

    def place(self, field: int) -> int:
        """Where a field's value stands; 0 if it has none."""
        entry = 4 + 2 * field
        offset = self._read("<H", self._fields + entry) if entry < self._size else 0
        return self._at + offset if offset else 0

    def number(self, field: int, kind: str) -> int:
        """A number, 0 if it is left out."""
        place = self.place(field)
        return self._read(kind, place) if place else 0

    def table(self, field: int) -> _Table:
        """A table that must be there."""
        place = self.place(field)
        if not place:
            raise struct.error
        return _Table(self.data, place + self._read("<I", place))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of structs of two 64-bit numbers."""
        place = self.place(field)
        if not place:
            return []
        start = place + self._read("<I", place)
        data = self.data[start + 4 : start + 4 + 16 * self._read("<I", start)]
        return list(struct.iter_unpack("<qq", data))
