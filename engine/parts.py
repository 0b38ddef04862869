"""What the pool is while it is read: parts, each what one process has read, dealt out to shards.

A part knows nothing of the ones before it. Here the driver adds up their lines and rows, finds the
duplicates among all rows and decides where shards end.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.census import Census
from engine.columns import id_bits
from engine.config import PoolConfig
from engine.maths.sharding import duplicates, shard_bounds


@dataclass(frozen=True)
class Part:
    """What one process has read: its rows and rejects, each in an Arrow file."""

    rows: Path
    rejected: Path
    num_rows: int
    num_lines: int
    """Lines of the last piece that was read."""
    peak_memory_bytes: int
    census: Census
    """What its rows' keys are good for."""
    lines_before: int = 0
    """Lines of the file before this part."""

    def open_rows(self) -> pa.Table:
        """`schema.POOL` without `row`, mapped into memory."""
        return self._open(self.rows)

    def open_rejected(self) -> pa.Table:
        """`schema.REJECTED`."""
        return self._open(self.rejected)

    def _open(self, path: Path) -> pa.Table:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        line = pa.array(np.asarray(table["line"]) + self.lines_before)
        place = table.schema.get_field_index("line")
        return table.set_column(place, table.schema.field("line"), line)


@dataclass(frozen=True)
class Shard:
    """One shard, said in rows of parts."""

    name: str
    first_row: int
    slices: list[tuple[Part, int, int]]
    """Part, the first of its rows that are meant, and their number."""
    is_duplicate: npt.NDArray[np.bool_]


def shards_of(parts: list[Part], config: PoolConfig) -> list[Shard]:
    """Which rows of which parts each shard gets, and which of them are duplicates."""
    ids: list[npt.NDArray[np.uint64]] = []
    sizes: list[npt.NDArray[np.int64]] = []
    for table in map(Part.open_rows, parts):
        ids.append(id_bits(table["id"]))
        sizes.append(np.asarray(pc.call_function("binary_length", [table["raw"]])))
    again = duplicates(np.concatenate(ids))
    every = np.concatenate(sizes)
    bounds = shard_bounds(every, config.rows_per_shard(len(every)), config.shard_bytes)
    return [
        Shard(f"part-{index:05d}.parquet", start, slices, again[start:stop])
        for index, ((start, stop), slices) in enumerate(
            zip(pairwise(bounds), _slices(parts, bounds), strict=True)
        )
    ]


def _slices(parts: list[Part], bounds: list[int]) -> list[list[tuple[Part, int, int]]]:
    """Which rows of which parts each shard holds: a slice ends where a part or a shard does."""
    starts = list(accumulate((part.num_rows for part in parts), initial=0))
    slices: list[list[tuple[Part, int, int]]] = [[] for _ in bounds[1:]]
    for start, stop in pairwise(sorted({*starts, *bounds})):
        place = bisect_right(starts, start) - 1
        shard = slices[bisect_right(bounds, start) - 1]
        shard.append((parts[place], start - starts[place], stop - start))
    return slices
