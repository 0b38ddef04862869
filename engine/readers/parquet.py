"""Rows of Parquet files, of plain columns only."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from engine import schema
from engine.errors import BrokenFileError
from engine.formats import json_text
from engine.readers.line import Line, too_large
from engine.storage import is_disk_error

_BATCH_ROWS: Final = 1024


def read_parquet(path: Path, max_row_bytes: int) -> Iterator[Line]:
    """Each row, as the JSON that it would be."""
    number = 0
    try:
        with open_parquet(path) as table:
            batches = table.iter_batches(batch_size=_BATCH_ROWS)
            rows = chain.from_iterable(map(_rows, batches))
            for number, row in enumerate(rows, start=1):
                yield _parquet_line(number, row, max_row_bytes)
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_disk_error(error):
            raise  # the disk's errors, not the file's
        reason = str(error).splitlines()[0]
        raise BrokenFileError(
            f"a pool file is not readable Parquet: {reason}",
            f"{path}, after row {number}",
            "write or download it again; a Parquet file that was cut short cannot be read at all",
            schema.BROKEN_FILE,
            number + 1,
        ) from None


def _parquet_line(number: int, row: dict[str, Any] | None, max_row_bytes: int) -> Line:
    if row is None:
        problem = "a text cell is not valid UTF-8"
        return Line(number, None, None, schema.INVALID_UTF8, problem)
    raw = json_text(row)
    # No text is shorter in UTF-8 than in characters.
    if len(raw) > max_row_bytes or len(raw.encode("utf-8", "replace")) > max_row_bytes:
        return too_large(number, max_row_bytes)
    return Line(number, raw, row, None, None)


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of plain types.

    Extension types bring their own code: some libraries register types that unpickle what the
    file's schema holds as soon as it is opened. So the schema's bytes are looked at before.

    Raises:
        BrokenFileError: a column has an extension type.
        pyarrow.ArrowException, OSError: the file is no Parquet.
    """
    if _names_extension_types(path):
        raise BrokenFileError(
            "a pool file is not read: a column has an extension type, which can run code",
            str(path),
            "write it again with plain columns (text, numbers, lists, structs)",
            schema.UNSAFE_FILE,
            1,
        )
    with pa.OSFile(str(path)) as stream, pq.ParquetFile(stream) as table:
        yield table


_FOOTER_END: Final = 8
"""Bytes behind Parquet's footer: its length, and PAR1."""
_ARROW_SCHEMA: Final = re.compile(rb"ARROW:schema.{1,10}?([A-Za-z0-9+/\s]{8,})", re.DOTALL)
_EXTENSION: Final = b"ARROW:extension:name"


def _names_extension_types(path: Path) -> bool:
    """Whether an Arrow schema in the footer names one; decodes nothing but base64."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size < 2 * _FOOTER_END:
            return False
        stream.seek(size - _FOOTER_END)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(max(0, size - _FOOTER_END - length))
        footer = stream.read(min(length, size))
    # What stands between key and value may look like base64 too, so each alignment is tried.
    found = (text.translate(None, b" \t\r\n\x0b\x0c") for text in _ARROW_SCHEMA.findall(footer))
    schemas = (_unpadded(text[start:]) for text in found for start in range(4))
    return any(_EXTENSION in each for each in (footer, *schemas))


def _unpadded(text: bytes) -> bytes:
    """Base64 up to the last group of four characters."""
    return b64decode(text[: len(text) // 4 * 4])


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The batch's rows; None where text is not UTF-8, which Parquet's writers need not check."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]
