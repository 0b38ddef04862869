"""Rows of Parquet files, of plain columns only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from engine.readers.archive import max_unpacked_bytes
from engine.readers.line import Line
from engine.readers.parquet_footer import Footer
from engine.readers.table import BATCH_ROWS, extension_type, read_rows, refuse_fields, too_much

_BATCH_BYTES: Final = 2**28
_READ_BYTES: Final = 2**20


def read_parquet(path: Path, max_row_bytes: int) -> Iterator[Line]:
    """Each row, as the JSON that it would be."""
    fix = "write or download it again; a Parquet file that was cut short cannot be read at all"
    return read_rows(open_parquet, path, max_row_bytes, "Parquet", fix)


@dataclass(frozen=True)
class PlainParquet:
    """An open file, read a few rows at a time."""

    table: pq.ParquetFile
    footer: Footer

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, so many at a time that they take no more than `_BATCH_BYTES` or so."""
        for number, group in enumerate(self.footer.groups):
            most = _BATCH_BYTES // max(1, group.row_bytes)
            batch_rows = min(max(1, most), BATCH_ROWS)
            yield from self.table.iter_batches(batch_rows, row_groups=[number])


@contextmanager
def open_parquet(path: Path) -> Iterator[PlainParquet]:
    """A Parquet file of plain types, each name once, that unpacks to no more than an archive may.

    Extension types bring their own code: some libraries register types that unpickle what the
    file's schema holds as soon as it is opened. So the footer is looked at before.

    Raises:
        BrokenFileError: it is none of that.
        ValueError, pyarrow.ArrowException, OSError: the file is no Parquet that can be read.
    """
    footer = Footer(path)
    if footer.may_hold_extension_types:
        raise extension_type(path)
    limit = max_unpacked_bytes(path.stat().st_size)
    if footer.unpacked_bytes > limit:
        raise too_much(path, limit)
    with (
        pa.OSFile(str(path)) as stream,
        pq.ParquetFile(
            stream,
            arrow_extensions_enabled=False,  # or Parquet's own logical types become such
            pre_buffer=False,  # which would take a whole row group into memory
            buffer_size=_READ_BYTES,
        ) as table,
    ):
        refuse_fields(path, list(table.schema_arrow))
        yield PlainParquet(table, footer)
