"""What a Parquet file's footer says, found without the reader that would act on it.

Arrow runs code of registered extension types as soon as a file is opened, and ends the process when
it is asked about a column that is encrypted (pyarrow 26). So what is unsafe is found here before.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

_END_BYTES: Final = 8
"""Behind the footer: its length, and PAR1."""
_EXTENSION: Final = b"ARROW:extension:name"
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{%d,}" % (len(_EXTENSION) * 4 // 3))

# Numbers of fields in parquet.thrift of Apache Parquet's format.
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3
_NUM_VALUES, _UNCOMPRESSED_SIZE = 5, 6
_CRYPTO_METADATA = 8


class Footer:
    """The footer of one file.

    Raises:
        ValueError: it is none.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _END_BYTES))
            end = stream.read(_END_BYTES)
            length = int.from_bytes(end[:4], "little")
            if end[4:] == b"PARE":
                raise ValueError("the file is encrypted")
            if end[4:] != b"PAR1" or length + _END_BYTES > size:
                raise ValueError("it does not end in a footer")
            stream.seek(size - _END_BYTES - length)
            self.data = stream.read(length)
        try:
            groups = _Compact(self.data).struct().get(_ROW_GROUPS, [])
            self._columns = [column for group in groups for column in group.get(_COLUMNS, [])]
            if any(_CRYPTO_METADATA in column for column in self._columns):
                raise ValueError("a column is encrypted")
            self.unpacked_bytes = sum(map(_unpacked_bytes, self._columns))
        except (IndexError, AttributeError, TypeError, RecursionError):
            raise ValueError("its footer is damaged") from None

    @property
    def may_hold_extension_types(self) -> bool:
        """Whether anything in it reads as an Arrow schema that names one.

        The schema is the base64 value of some key. Whatever stands around it, its characters stand
        together, so all that may be base64 is looked at, in each of the four alignments.
        """
        texts = _BASE64.findall(self.data)
        found = (_unpadded(text[start:]) for text in texts for start in range(4))
        return _EXTENSION in self.data or any(_EXTENSION in each for each in found)


def _unpacked_bytes(column: dict[int, Any]) -> int:
    """What a column chunk is said to unpack to; a value takes a byte at least."""
    meta = column.get(_META_DATA, {})
    return max(0, meta.get(_UNCOMPRESSED_SIZE, 0), meta.get(_NUM_VALUES, 0))


def _unpadded(text: bytes) -> bytes:
    """Base64 up to the last group of four characters."""
    return b64decode(text[: len(text) // 4 * 4])


class _Compact:
    """Thrift's compact protocol: structs as dicts by number of field, lists as lists.

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
        if kind == 12:
            return self.struct()
        raise ValueError(f"a value of kind {kind}")

    def _list(self) -> list[Any]:
        head = self._byte()
        num = head >> 4 if head >> 4 < 15 else self._natural()
        return [self._value(head & 15) for _ in range(num)]

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
