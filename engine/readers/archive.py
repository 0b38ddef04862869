"""Text in gzip and zstd, up to a limit of what it unpacks to."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import pyarrow as pa

from engine import schema
from engine.errors import BrokenFileError
from engine.readers.jsonl import BUFFER_BYTES
from engine.readers.line import Line
from engine.storage import is_disk_error

UNPACKED_BYTES: Final = 2**28
MAX_RATIO: Final = 100
"""A file may unpack to this much, or to so many times its own size. Text shrinks tenfold; what
shrinks a thousandfold was made to fill somebody's memory."""


def max_unpacked_bytes(size: int) -> int:
    """What a file of that size may unpack to."""
    return max(UNPACKED_BYTES, MAX_RATIO * size)


def read_archive(
    path: Path, codec: str, read: Callable[[BinaryIO], Iterator[Line]]
) -> Iterator[Line]:
    """What is read of the text in gzip or zstd, of one member or several."""
    line = 0
    try:
        size = path.stat().st_size
        if size == 0:
            raise EOFError("the file is empty")
        with _Unpacked(path, codec, max_unpacked_bytes(size)) as unpacked:
            for found in read(cast(BinaryIO, io.BufferedReader(unpacked, BUFFER_BYTES))):
                line = found.line
                yield found
    except _TooMuchError as error:
        fix = "unpack it yourself and look at it"
        what = f"a pool file is not read: {error}"
        raise BrokenFileError(what, str(path), fix, schema.UNSAFE_FILE, line + 1) from None
    except (EOFError, OSError) as error:
        if is_disk_error(error):
            raise  # the disk's errors, not the archive's
        fix = f"copy or download it again; {codec} --test must pass"
        what = f"a pool file is not whole {codec}: {error}"
        raise BrokenFileError(what, str(path), fix, schema.BROKEN_FILE, line + 1) from None


class _TooMuchError(Exception):
    """An archive unpacks to more than it may."""


class _Unpacked(io.RawIOBase):
    """What an archive unpacks to, up to a limit."""

    def __init__(self, path: Path, codec: str, max_bytes: int) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(str(path)), codec)
        self._max_bytes = self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num = self._stream.readinto(buffer)
        self._left -= num
        if self._left < 0:
            raise _TooMuchError(f"it unpacks to more than {self._max_bytes:,} bytes")
        return num

    def close(self) -> None:
        self._stream.close()
        super().close()
