"""Our look at Parquet's footer, against what Arrow says of it, and on garbage."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.readers.parquet_footer import Footer

TABLE = pa.table(
    {
        "text": ["a", "bb", None] * 50,
        "turns": [[{"role": "user", "content": "é"}], None, []] * 50,
        "flag": [True, False, None] * 50,
        "number": [1.5, None, 3.0] * 50,
    }
)
GARBAGE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_sizes_are_those_that_arrow_finds(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=40, version=version, write_page_index=True)
    metadata = pq.read_metadata(path)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    expected = sum(max(c.total_uncompressed_size, c.num_values) for c in columns)
    footer = Footer(path)
    assert footer.unpacked_bytes == expected
    assert not footer.may_hold_extension_types


@GARBAGE
@given(
    place=st.integers(0, 400), new=st.binary(max_size=12), cut=st.integers(0, 12), data=st.binary()
)
def test_garbage_is_a_value_error_at_most(
    tmp_path: Path, place: int, new: bytes, cut: int, data: bytes
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    good = whole[-8 - length : -8]
    for footer in (good[:place] + new + good[place + cut :], data):
        path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        try:
            assert Footer(path).unpacked_bytes >= 0
        except ValueError as error:
            assert str(error)  # noqa: PT017  either is fine, nothing else is


@pytest.mark.parametrize("data", [b"\x19" * 10**5, b"\x1c" * 10**5, b"\x16" + b"\x80" * 10**5])
def test_deep_nests_and_endless_numbers(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match=r"damaged|64 bits"):
        Footer(path)
