"""Rows of Parquet files, of plain columns only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine import schema
from engine.errors import BrokenFileError
from engine.formats import json_text
from engine.maths.sharding import shard_bounds
from engine.readers.archive import max_unpacked_bytes
from engine.readers.line import Line, too_large
from engine.readers.parquet_footer import Footer
from engine.storage import is_disk_error

_BATCH_ROWS: Final = 1024
_BATCH_BYTES: Final = 2**28
_READ_BYTES: Final = 2**20
_GROUP_BYTES: Final = 2**26
"""Text of rows that become Python objects at a time."""


def read_parquet(path: Path, max_row_bytes: int) -> Iterator[Line]:
    """Each row, as the JSON that it would be."""
    number = 0
    try:
        with open_parquet(path) as table:
            rows = chain.from_iterable(_rows(batch, max_row_bytes) for batch in table.batches())
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


def _parquet_line(number: int, row: dict[str, Any] | str, max_row_bytes: int) -> Line:
    if row == schema.ROW_TOO_LARGE:
        return too_large(number, max_row_bytes)
    if isinstance(row, str):
        return Line(number, None, None, row, "a text cell is not valid UTF-8")
    raw = json_text(row)
    # No text is shorter in UTF-8 than in characters.
    if len(raw) > max_row_bytes or len(raw.encode("utf-8", "replace")) > max_row_bytes:
        return too_large(number, max_row_bytes)
    return Line(number, raw, row, None, None)


# ── opening ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PlainParquet:
    """An open file, read a few rows at a time."""

    table: pq.ParquetFile
    footer: Footer

    @property
    def num_rows(self) -> int:
        return self.table.metadata.num_rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, so many at a time that they take no more than `_BATCH_BYTES` or so."""
        for number, group in enumerate(self.footer.groups):
            most = _BATCH_BYTES // max(1, group.row_bytes)
            batch_rows = min(max(1, most), _BATCH_ROWS)
            yield from self.table.iter_batches(batch_rows, row_groups=[number])


@contextmanager
def open_parquet(path: Path) -> Iterator[PlainParquet]:
    """A Parquet file of plain types, each name once, that unpacks to no more than an archive may.

    Extension types bring their own code: some libraries register types that unpickle what the
    file's schema holds as soon as it is opened. So the footer is looked at before.

    Raises:
        BrokenFileError: it is none of that.
        ValueError, pyarrow.ArrowException, OSError: the file is no Parquet that can be read.
    """
    footer = Footer(path)
    if footer.may_hold_extension_types:
        raise _extension_type(path)
    limit = max_unpacked_bytes(path.stat().st_size)
    if footer.unpacked_bytes > limit:
        what = f"a pool file is not read: it unpacks to more than {limit:,} bytes"
        fix = "look at it, and write it again in smaller files"
        raise BrokenFileError(what, str(path), fix, schema.UNSAFE_FILE, 1)
    with (
        pa.OSFile(str(path)) as stream,
        pq.ParquetFile(
            stream,
            arrow_extensions_enabled=False,  # or Parquet's own logical types become such
            pre_buffer=False,  # which would take a whole row group into memory
            buffer_size=_READ_BYTES,
        ) as table,
    ):
        _refuse_fields(path, list(table.schema_arrow))
        yield PlainParquet(table, footer)


def _refuse_fields(path: Path, fields: list[pa.Field]) -> None:
    """Refuse names that come twice beside one another, and extension types, at any depth."""
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        what = f"a pool file is not read: it has several columns {again!r}"
        fix = "write it again with a name of its own for each column"
        raise BrokenFileError(what, str(path), fix, schema.BROKEN_FILE, 1)
    for field in fields:
        if isinstance(field.type, pa.BaseExtensionType):
            raise _extension_type(path)
        if pa.types.is_nested(field.type):
            _refuse_fields(path, [field.type.field(at) for at in range(field.type.num_fields)])


def _extension_type(path: Path) -> BrokenFileError:
    return BrokenFileError(
        "a pool file is not read: a column has an extension type, which can run code",
        str(path),
        "write it again with plain columns (text, numbers, lists, structs)",
        schema.UNSAFE_FILE,
        1,
    )


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


def _rows(batch: pa.RecordBatch, max_row_bytes: int) -> Iterator[dict[str, Any] | str]:
    """The batch's rows; in the place of one that is too large, or whose text is not UTF-8 (which
    Parquet's writers need not check), the reason.
    """
    sizes = _text_bytes(batch.to_struct_array())
    for start, stop in pairwise(shard_bounds(sizes, _BATCH_ROWS, _GROUP_BYTES)):
        group = batch.slice(start, stop - start)
        rows = _objects(group) if sizes[start:stop].max() <= max_row_bytes else None
        if rows is not None:
            yield from rows
            continue
        for at, size in enumerate(sizes[start:stop].tolist()):
            if size > max_row_bytes:
                yield schema.ROW_TOO_LARGE
            else:
                yield (_objects(group.slice(at, 1)) or [schema.INVALID_UTF8])[0]


def _objects(batch: pa.RecordBatch) -> list[dict[str, Any]] | None:
    """The rows; None where a text is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return None


def _text_bytes(array: pa.Array) -> npt.NDArray[np.int64]:
    """int64[n]: bytes of all texts in each row, less than which no JSON of it takes."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        inside = _text_bytes(array.dictionary)
        places = np.asarray(array.indices.fill_null(0)).astype(np.int64)
        return np.where(np.asarray(array.is_valid()), inside[places], 0) if len(inside) else places
    if _is_text(kind):
        lengths = pc.call_function("binary_length", [array])
        return np.asarray(lengths.fill_null(0)).astype(np.int64)
    if pa.types.is_fixed_size_binary(kind):
        return np.full(len(array), kind.byte_width, dtype=np.int64)
    if pa.types.is_struct(kind):
        return _total([_text_bytes(part) for part in array.flatten()], len(array))
    if pa.types.is_map(kind):
        inside = _total([_text_bytes(array.keys), _text_bytes(array.items)], len(array.keys))
        before = np.concatenate([[0], np.cumsum(inside)])
        return np.diff(before[np.asarray(array.offsets)])
    if pa.types.is_nested(kind):
        inside = _text_bytes(pc.call_function("list_flatten", [array]))
        parents = np.asarray(pc.call_function("list_parent_indices", [array]))
        return np.bincount(parents, inside, len(array)).astype(np.int64)
    return np.zeros(len(array), dtype=np.int64)


def _is_text(kind: pa.DataType) -> bool:
    texts = pa.string(), pa.large_string(), pa.binary(), pa.large_binary()
    return kind in texts


def _total(parts: list[npt.NDArray[np.int64]], num: int) -> npt.NDArray[np.int64]:
    return sum(parts, start=np.zeros(num, dtype=np.int64))
