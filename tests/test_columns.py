"""Columns to arrays: what a sort by id and a count of flags rest on."""

from __future__ import annotations

from binascii import Error

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.columns import counts, equals, id_bits

IDS = ["00" * 16, "0123456789abcdef" * 2, "f" * 32, "8" + "0" * 31, "7" + "f" * 31]


def test_an_id_is_its_high_and_its_low_half() -> None:
    assert id_bits(pa.chunked_array([IDS])).tolist() == [
        [0, 0],
        [0x0123456789ABCDEF, 0x0123456789ABCDEF],
        [2**64 - 1, 2**64 - 1],
        [2**63, 0],
        [2**63 - 1, 2**64 - 1],
    ]


def test_ids_of_several_chunks_and_of_a_slice() -> None:
    column = pa.chunked_array([IDS[:2], [], IDS[2:]])
    assert id_bits(column).tolist() == id_bits(pa.chunked_array([IDS])).tolist()
    assert id_bits(column.slice(1, 3)).tolist() == id_bits(column).tolist()[1:4]
    assert id_bits(column.slice(0, 0)).shape == (0, 2)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_bits_sort_as_the_digits_do(ids: list[bytes]) -> None:
    digits = [i.hex() for i in ids]
    bits = id_bits(pa.chunked_array([digits], pa.string()))
    by_bits = np.lexsort((bits[:, 1], bits[:, 0])).tolist()
    assert [digits[i] for i in by_bits] == sorted(digits)


@pytest.mark.parametrize("wrong", ["", "0a", "0" * 31, "0" * 33])
def test_an_id_of_another_length_is_refused(wrong: str) -> None:
    with pytest.raises(pa.ArrowInvalid):
        id_bits(pa.chunked_array([[*IDS, wrong]]))


def test_an_id_of_other_digits_is_refused() -> None:
    with pytest.raises(Error):
        id_bits(pa.chunked_array([["g" * 32]]))


def test_null_equals_nothing() -> None:
    column = pa.chunked_array([["ok", None], ["no", "ok"]])
    assert equals(column, "ok").tolist() == [True, False, False, True]


def test_strings_are_counted_over_all_chunks() -> None:
    column = pa.chunked_array([["ok", "duplicate"], ["ok"]])
    assert counts(column) == {"ok": 2, "duplicate": 1}
    assert counts(pa.chunked_array([], pa.string())) == {}
