"""What is decided of all rows at once: which were there before, and where shards end."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt


def duplicates(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """bool[n]: whether an earlier row has the same id, of uint64[n, 2]."""
    order = np.lexsort(ids.T)  # stable: equal ids stay in the order of rows
    again = np.zeros(len(ids), dtype=np.bool_)
    again[order[1:]] = (ids[order[1:]] == ids[order[:-1]]).all(axis=1)
    return again


def shard_bounds(sizes: npt.NDArray[np.int64], max_rows: int, max_bytes: int) -> list[int]:
    """Where shards begin and the last one ends, given each row's bytes, int64[n].

    A shard ends with its `max_rows`th row, or the one with which it reaches `max_bytes`.
    """
    total: npt.NDArray[np.int64] = np.cumsum(sizes, dtype=np.int64)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = bounds[-1]
        before = int(total[start]) - int(sizes[start])
        by_bytes = bisect_left(total, before + max_bytes) + 1
        bounds.append(min(start + max_rows, by_bytes, len(sizes)))
    return bounds
