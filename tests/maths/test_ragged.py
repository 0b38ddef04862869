"""Rows of different lengths, against lists of lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.maths.ragged import Ragged

LISTS = st.lists(st.lists(st.integers(-5, 5), max_size=6), max_size=8)


def lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[i].tolist() for i in range(len(ragged))]


@given(rows=LISTS, data=st.data())
def test_take_and_back(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.of(rows)
    assert lists(ragged) == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    assert lists(ragged.take(np.array(wanted, dtype=np.int64))) == [rows[i] for i in wanted]


@given(rows=LISTS, num=st.integers(0, 3))
def test_drop_first(rows: list[list[int]], num: int) -> None:
    long_enough = [row for row in rows if len(row) >= num]
    assert lists(Ragged.of(long_enough).drop_first(num)) == [row[num:] for row in long_enough]


def test_a_row_that_is_too_short_is_not_cut() -> None:
    with pytest.raises(AssertionError, match="shorter than what is dropped"):
        Ragged.of([[1, 2], [3]]).drop_first(2)


@pytest.mark.parametrize("fill", [0, 7])
def test_pad_fills_on_the_right(fill: int) -> None:
    padded = Ragged.of([[1, 2, 3], [4], []]).pad(fill)
    assert padded.dtype == np.int64
    assert padded.tolist() == [[1, 2, 3], [4, fill, fill], [fill, fill, fill]]
    assert Ragged.of([]).pad(fill).shape == (0, 0)
