"""Groups of rows that begin alike: by hand, and as a law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.maths import prefix
from engine.maths.prefix import shared_prefixes
from engine.maths.ragged import Ragged


@pytest.fixture(autouse=True)
def groups_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small enough to be worked out by hand."""
    monkeypatch.setattr(prefix, "MIN_GROUP_ROWS", 2)


def found(rows: list[list[int]], limits: list[int]) -> list[tuple[list[int], int]]:
    groups = shared_prefixes(Ragged.of(rows), np.array(limits, dtype=np.int64))
    return sorted((group.rows.tolist(), group.num_tokens) for group in groups)


def test_two_templates_worked_out_by_hand() -> None:
    rows = [
        [1, 2, 3, 50, 51],  # 1 2 3 …
        [1, 2, 9, 8, 60],  # 1 2 9 8 …
        [1, 2, 3, 70, 71, 72],
        [1, 2, 9, 8, 61],
        [1, 2, 4, 5, 6],  # begins like both, alone from then on
    ]
    assert found(rows, [4] * 5) == [([0, 2], 3), ([1, 3], 4), ([4], 0)]


def test_no_token_behind_a_rows_limit_is_shared() -> None:
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]
    assert found(rows, [4, 4]) == [([0, 1], 4)]
    assert found(rows, [4, 2]) == [([0, 1], 2)]
    assert found(rows, [0, 4]) == [([0, 1], 0)]


def test_a_prefix_that_saves_little_is_not_worth_it() -> None:
    long = [[1, *range(10, 31)], [1, *range(40, 61)]]  # 1 token of 44
    assert found(long, [20, 20]) == [([0, 1], 0)]
    short = [[1, 2, 3, 4], [1, 5, 6, 7]]  # 1 of 8
    assert found(short, [3, 3]) == [([0, 1], 1)]


def test_equal_rows_share_all_they_may() -> None:
    assert found([[1, 2, 3]] * 3, [2] * 3) == [([0, 1, 2], 2)]
    assert found([], []) == []


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12),
    data=st.data(),
)
def test_every_row_once_and_every_prefix_shared(rows: list[list[int]], data: st.DataObject) -> None:
    limits = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    groups = found(rows, limits)
    assert sorted(row for members, _ in groups for row in members) == list(range(len(rows)))
    assert sum(num == 0 for _, num in groups) <= 1
    for members, num in groups:
        assert len({tuple(rows[row][:num]) for row in members}) == 1
        assert all(num <= limits[row] for row in members)
        if num:
            total = sum(len(rows[row]) for row in members)
            assert num * (len(members) - 1) >= prefix.MIN_SAVED * total
