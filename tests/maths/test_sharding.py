"""Duplicates and the ends of shards, against what they are said to be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.maths.sharding import duplicates, shard_bounds


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(2**63, 2**63 + 2)), max_size=30))
def test_duplicates_are_rows_seen_before(pairs: list[tuple[int, int]]) -> None:
    ids = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    assert duplicates(ids).tolist() == [pair in pairs[:at] for at, pair in enumerate(pairs)]


@given(
    sizes=st.lists(st.integers(1, 9), max_size=40),
    max_rows=st.integers(1, 6),
    max_bytes=st.integers(1, 30),
)
def test_a_shard_ends_with_the_row_that_fills_it(
    sizes: list[int], max_rows: int, max_bytes: int
) -> None:
    bounds, rows, total = [0], 0, 0
    for at, size in enumerate(sizes, start=1):
        rows, total = rows + 1, total + size
        if rows >= max_rows or total >= max_bytes or at == len(sizes):
            bounds.append(at)
            rows = total = 0
    assert shard_bounds(np.array(sizes, dtype=np.int64), max_rows, max_bytes) == bounds
