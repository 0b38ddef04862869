"""Arrow columns to NumPy arrays and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.maths.ragged import Ragged
from engine.maths.ranking import Keys

Int32s = npt.NDArray[np.int32]


def equals(column: pa.ChunkedArray, value: str) -> npt.NDArray[np.bool_]:
    """bool[n]: where a string column holds `value`."""
    return np.array(column.to_pylist(), dtype=object) == value


def ranking_keys(table: pa.Table, metric: str) -> Keys:
    """What ranks and selections need of score rows, none of which may be null."""
    return Keys(
        cluster=np.asarray(table["cluster"], dtype=np.int64),
        score=np.asarray(table[metric], dtype=np.float64),
        id=np.array(table["id"].to_pylist(), dtype="U32"),
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
