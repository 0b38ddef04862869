"""Rows of Arrow tables, which strangers' files hold: what may be in them, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine import schema
from engine.errors import BrokenFileError
from engine.formats import json_text
from engine.maths.sharding import shard_bounds
from engine.readers.line import Line, too_large
from engine.storage import is_disk_error

BATCH_ROWS: Final = 1024
_GROUP_BYTES: Final = 2**26
"""Text of rows that become Python objects at a time."""


class Table(Protocol):
    """An open file of columns."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows, some at a time."""
        ...


def read_rows(
    open_table: Callable[[Path], AbstractContextManager[Table]],
    path: Path,
    max_row_bytes: int,
    kind: str,
    fix: str,
) -> Iterator[Line]:
    """Each row, as the JSON that it would be.

    Args:
        open_table: opens the file.
        path: where it lies.
        max_row_bytes: see `lines_of`.
        kind: what it should be, for people.
        fix: how to mend one that is not.

    Raises:
        BrokenFileError: it is broken, at that row.
    """
    number = 0
    try:
        with open_table(path) as table:
            for line in lines_of(table.batches(), max_row_bytes):
                number = line.line
                yield line
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_disk_error(error):
            raise  # the disk's errors, not the file's
        what = f"a pool file is not readable {kind}: {str(error).splitlines()[0]}"
        where = f"{path}, after row {number}"
        raise BrokenFileError(what, where, fix, schema.BROKEN_FILE, number + 1) from None


def lines_of(batches: Iterator[pa.RecordBatch], max_row_bytes: int) -> Iterator[Line]:
    """Each row as the JSON that it would be, numbered from 1."""
    number = 0
    for batch in batches:
        for row in _rows(batch, max_row_bytes):
            number += 1
            yield _line(number, row, max_row_bytes)


def _line(number: int, row: dict[str, Any] | str, max_row_bytes: int) -> Line:
    if row == schema.ROW_TOO_LARGE:
        return too_large(number, max_row_bytes)
    if isinstance(row, str):
        return Line(number, None, None, row, "a text cell is not valid UTF-8")
    raw = json_text(row)
    # No text is shorter in UTF-8 than in characters.
    if len(raw) > max_row_bytes or len(raw.encode("utf-8", "replace")) > max_row_bytes:
        return too_large(number, max_row_bytes)
    return Line(number, raw, row, None, None)


# ── what may be in a table ───────────────────────────────────────────────────────────────────────


def refuse_fields(path: Path, fields: list[pa.Field]) -> None:
    """Refuse names that come twice beside one another, and extension types, at any depth."""
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        what = f"a pool file is not read: it has several columns {again!r}"
        fix = "write it again with a name of its own for each column"
        raise BrokenFileError(what, str(path), fix, schema.BROKEN_FILE, 1)
    for field in fields:
        if isinstance(field.type, pa.BaseExtensionType):
            raise extension_type(path)
        if pa.types.is_nested(field.type):
            refuse_fields(path, [field.type.field(at) for at in range(field.type.num_fields)])


def extension_type(path: Path) -> BrokenFileError:
    """A column of such a type is refused before Arrow sees it."""
    return BrokenFileError(
        "a pool file is not read: a column has an extension type, which can run code",
        str(path),
        "write it again with plain columns (text, numbers, lists, structs)",
        schema.UNSAFE_FILE,
        1,
    )


def too_much(path: Path, limit: int) -> BrokenFileError:
    """A file that unpacks to more than it may."""
    what = f"a pool file is not read: it unpacks to more than {limit:,} bytes"
    fix = "look at it, and write it again in smaller files"
    return BrokenFileError(what, str(path), fix, schema.UNSAFE_FILE, 1)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


def _rows(batch: pa.RecordBatch, max_row_bytes: int) -> Iterator[dict[str, Any] | str]:
    """The batch's rows; in the place of one that is too large, or whose text is not UTF-8 (which
    Parquet's writers need not check), the reason.
    """
    if not len(batch):
        return
    sizes = least_bytes(batch.to_struct_array())
    for start, stop in pairwise(shard_bounds(sizes, BATCH_ROWS, _GROUP_BYTES)):
        group = batch.slice(start, stop - start)
        rows = objects(group) if sizes[start:stop].max() <= max_row_bytes else None
        if rows is not None:
            yield from rows
            continue
        for at, size in enumerate(sizes[start:stop].tolist()):
            if size > max_row_bytes:
                yield schema.ROW_TOO_LARGE
            else:
                yield (objects(group.slice(at, 1)) or [schema.INVALID_UTF8])[0]


def objects(batch: pa.RecordBatch) -> list[dict[str, Any]] | None:
    """The rows; None where a text is not UTF-8, or Python has none of several rows' dates."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return None
    except (OverflowError, ValueError, KeyError, pa.ArrowException):  # of dates and time zones
        return objects(_numbered(batch)) if len(batch) == 1 else None


def _numbered(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the numbers that dates and times are kept as.

    Raises:
        ValueError: it has none, or they cannot be had.
    """
    kinds = [_number_type(field.type) for field in batch.schema]
    if kinds == batch.schema.types:
        raise ValueError("a value cannot be read")
    named = zip(batch.schema.names, kinds, strict=True)
    try:
        return batch.cast(pa.schema([pa.field(name, kind) for name, kind in named]))
    except pa.ArrowException as error:
        raise ValueError(f"a date or time cannot be read: {error}") from None


def _number_type(kind: pa.DataType) -> pa.DataType:
    """The type with whole numbers in the place of dates and times, at any depth."""
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pa.int32()
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return pa.int64()
    if pa.types.is_dictionary(kind):
        return _number_type(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [kind.field(at) for at in range(kind.num_fields)]
        return pa.struct([field.with_type(_number_type(field.type)) for field in fields])
    if pa.types.is_map(kind):
        return pa.map_(_number_type(kind.key_type), _number_type(kind.item_type))
    for is_kind, make in _LISTS:
        if is_kind(kind):
            return make(kind.value_field.with_type(_number_type(kind.value_type)))
    return kind


def least_bytes(array: pa.Array) -> npt.NDArray[np.int64]:
    """int64[n]: bytes that the JSON of each value takes at least: those of all texts in it, and
    one for each other value.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        inside = least_bytes(array.dictionary)
        places = np.asarray(array.indices.fill_null(0)).astype(np.int64)
        return np.where(np.asarray(array.is_valid()), inside[places], 0) if len(inside) else places
    if _is_text(kind):
        lengths = pc.call_function("binary_length", [array])
        return np.asarray(lengths.fill_null(0)).astype(np.int64)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _view_lengths(array)
    if pa.types.is_fixed_size_binary(kind):
        return np.full(len(array), kind.byte_width, dtype=np.int64)
    if pa.types.is_struct(kind):
        return _total([least_bytes(part) for part in array.flatten()], len(array))
    if pa.types.is_map(kind):
        inside = _total([least_bytes(array.keys), least_bytes(array.items)], len(array.keys))
        before = np.concatenate([[0], np.cumsum(inside)])
        return np.diff(before[np.asarray(array.offsets)])
    if pa.types.is_nested(kind):
        inside = least_bytes(pc.call_function("list_flatten", [array]))
        parents = np.asarray(pc.call_function("list_parent_indices", [array]))
        return np.bincount(parents, inside, len(array)).astype(np.int64)
    return np.ones(len(array), dtype=np.int64)


_LISTS: Final = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
)


def _is_text(kind: pa.DataType) -> bool:
    texts = pa.string(), pa.large_string(), pa.binary(), pa.large_binary()
    return kind in texts


def _view_lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """A view is 16 bytes, the first four of them its length."""
    views = array.buffers()[1]
    if views is None:
        return np.zeros(len(array), dtype=np.int64)
    lengths = np.frombuffer(views, dtype="<i4")[::4][array.offset : array.offset + len(array)]
    return np.where(np.asarray(array.is_valid()), lengths, 0).astype(np.int64)


def _total(parts: list[npt.NDArray[np.int64]], num: int) -> npt.NDArray[np.int64]:
    return sum(parts, start=np.zeros(num, dtype=np.int64))
