"""A table that grows row by row, for readers that know nothing of columns."""

from __future__ import annotations

from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine import schema

BATCH_ROWS, BATCH_CHARS = 4096, 64 * 2**20
"""Rows and characters of text that a reader holds before it writes them down."""


class Sheet:
    """An Arrow file that grows row by row; written in batches, as a piece may not fit memory."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.num_rows = 0
        self._writer = pa.ipc.new_file(str(path), schema)
        self._schema = schema
        self._held: list[tuple[Any, ...]] = []
        self._held_chars = 0

    def add(self, row: tuple[Any, ...], num_chars: int = 0) -> None:
        """One row more, in the order of the columns; `num_chars` of text in it."""
        self._held.append(row)
        self._held_chars += num_chars
        if len(self._held) >= BATCH_ROWS or self._held_chars >= BATCH_CHARS:
            self._flush()

    def close(self) -> None:
        """Write the rest, and what makes the file whole."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            columns = zip(*self._held, strict=True)
            arrays = [_array(*pair) for pair in zip(columns, self._schema.types, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self.num_rows += len(self._held)
        self._held, self._held_chars = [], 0


_TURNS = schema.POOL.field("turns").type


def _array(values: tuple[Any, ...], type_: pa.DataType) -> pa.Array:
    if type_ != _TURNS:
        return pa.array(values, type_)
    # pa.array would want a dict per turn, and take several times as long.
    turns = list(chain.from_iterable(values))
    fields = list(schema.TURN)
    arrays = [pa.array([getattr(turn, f.name) for turn in turns], f.type) for f in fields]
    items = pa.StructArray.from_arrays(arrays, fields=fields)
    offsets = accumulate(map(len, values), initial=0)
    return pa.ListArray.from_arrays(pa.array(list(offsets), pa.int32()), items, type=type_)
