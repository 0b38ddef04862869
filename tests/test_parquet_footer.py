"""Our look at Parquet's footer, against what Arrow says of it, and on garbage."""

from __future__ import annotations

from base64 import b64encode
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


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("has_dictionaries", [False, True])
def test_sizes_are_those_that_arrow_finds(
    tmp_path: Path, version: str, has_dictionaries: bool
) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{at:04d}" * 100 for at in range(150)]
    pq.write_table(
        pa.table({"text": texts, "turns": [[{"role": "user", "content": text}] for text in texts]}),
        path,
        row_group_size=40,
        data_page_version=version,
        data_page_size=2000,
        write_batch_size=8,
        use_dictionary=has_dictionaries,
        write_statistics=False,
    )
    metadata, footer = pq.read_metadata(path), Footer(path)
    assert len(footer.groups) == metadata.num_row_groups == 4
    for number, group in enumerate(footer.groups):
        columns = map(metadata.row_group(number).column, range(metadata.num_columns))
        for_arrow = sum(column.total_uncompressed_size for column in columns)  # headers and all
        assert 0.8 * for_arrow < group.unpacked_bytes < for_arrow
    assert not footer.may_hold_extension_types


def test_a_row_is_no_larger_than_its_pages(tmp_path: Path) -> None:
    path, text = tmp_path / "a.parquet", "x" * 10_000
    table = pa.table({"text": [text] * 500, "list": [[text, text, "a"]] * 500})
    pq.write_table(table, path)
    (group,) = Footer(path).groups
    assert 4 * 10_000 < group.row_bytes < 5 * 10_000
    assert group.unpacked_bytes < 10 * 10_000


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("behind", [b"", b"\x00", b"\x00\x00", b"\x00more"])
def test_a_name_is_found_wherever_it_stands_in_base64(
    tmp_path: Path, before: int, behind: bytes
) -> None:
    name = b64encode(b"." * before + b"ARROW:extension:name" + behind)
    for value in (name, name.rstrip(b"=")):
        footer = b"\x00" + value
        path = tmp_path / "a.parquet"
        path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        assert Footer(path).may_hold_extension_types


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


NUMBER, LIST, STRUCT = b"\x16", b"\x19", b"\x1c"


@pytest.mark.parametrize(
    "data",
    [LIST * 10**5, STRUCT * 10**5, NUMBER + b"\x80" * 10**5, b"\x16\x02\x06\x02\x02\x00"],
    ids=["lists", "structs", "number", "twice"],
)
def test_deep_nests_endless_numbers_and_fields_that_come_twice(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match=r"damaged|64 bits|twice"):
        Footer(path)
