"""Arrow columns to NumPy arrays and back."""

# pyarrow.compute makes its functions while it is imported, where no checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from binascii import unhexlify
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.maths.ragged import Ragged
from engine.maths.ranking import Keys

Int32s = npt.NDArray[np.int32]


def equals(column: pa.ChunkedArray, value: str) -> npt.NDArray[np.bool_]:
    """bool[n]: where a string column holds `value`."""
    return np.asarray(pc.fill_null(pc.equal(column, value), False), dtype=bool)


def counts(column: pa.ChunkedArray) -> Counter[str]:
    """How often each string of a column occurs."""
    return Counter({each["values"]: each["counts"] for each in column.value_counts().to_pylist()})


def replaced(column: pa.ChunkedArray, where: npt.NDArray[np.bool_], value: str) -> pa.ChunkedArray:
    """A string column with `value` where bool[n] `where` says so."""
    return pc.if_else(pa.array(where), value, column)


def id_bits(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """uint64[n, 2]: ids as the 128 bits that their 32 hex digits stand for, the high half first.

    Raises:
        pyarrow.ArrowInvalid, binascii.Error: an id is not 32 bytes long, or not hex digits.
    """
    digits = column.cast(pa.binary(32)).combine_chunks()
    start, end = 32 * digits.offset, 32 * (digits.offset + len(digits))
    bits = unhexlify(digits.buffers()[1][start:end]) if len(digits) else b""
    return np.frombuffer(bits, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def ranking_keys(table: pa.Table, metric: str) -> Keys:
    """What ranks and selections need of score rows, none of which may be null."""
    return Keys(
        cluster=np.asarray(table["cluster"], dtype=np.int64),
        score=np.asarray(table[metric], dtype=np.float64),
        id=id_bits(table["id"]),
        row=np.asarray(table["row"], dtype=np.int64),
    )


def from_lists(rows: Sequence[Int32s | None]) -> pa.LargeListArray:
    """``large_list<int32>`` with one entry per row, null where a row is None."""
    lengths = [0 if row is None else len(row) for row in rows]
    present = [row for row in rows if row is not None]
    values = np.concatenate(present) if present else np.zeros(0, dtype=np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int64())
    mask = pa.array([row is None for row in rows])
    return pa.LargeListArray.from_arrays(offsets, pa.array(values, pa.int32()), mask=mask)


def to_ragged(column: pa.ChunkedArray) -> Ragged:
    """The rows of a list column that holds no null."""
    assert column.null_count == 0, "take the rows that are there first"
    values = [np.asarray(chunk.flatten(), dtype=np.int32) for chunk in column.chunks]
    lengths = [np.asarray(chunk.value_lengths(), dtype=np.int64) for chunk in column.chunks]
    offsets = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *lengths]))
    return Ragged(np.concatenate([np.zeros(0, dtype=np.int32), *values]), offsets)
