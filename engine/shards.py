"""A shard as a file: Parquet with a checksum on every page, marked with what it is part of.

The mark (stage, fingerprint, shard, receipt) stands in the Parquet metadata, so that a file says of
itself which results it belongs to.
"""

# pyarrow ships no types, so nothing that comes out of it is known to a strict checker.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import RunDirError, in_short
from engine.storage import is_disk_error, patiently

GONE: Final = (FileNotFoundError, NotADirectoryError)
_KEY = b"poolscore"


def write(path: Path, table: pa.Table, mark: Mapping[str, Any]) -> None:
    """Write a marked table."""
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(mark).encode()}
    marked = table.replace_schema_metadata(metadata)
    pq.write_table(marked, path, compression="zstd", write_page_checksum=True)


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table, the checksum of every page verified.

    Raises:
        RunDirError: the file is missing or damaged.
    """

    def whole() -> pa.Table:
        # Half the time of read_table on a small file.
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            return shard.read(columns)

    with reading(path):
        table = patiently(whole)
        absent = set(columns or ()).difference(table.column_names)
        if absent:  # which this reader leaves out without a word
            raise ValueError(f"no column {', '.join(sorted(absent))}")
    return table


def num_rows(path: Path) -> int:
    """Rows, from the footer.

    Raises:
        RunDirError: the file is missing or damaged.
    """
    with reading(path):
        return patiently(partial(pq.read_metadata, path)).num_rows


def mark_at(path: Path) -> dict[str, Any]:
    """The mark of a file, from its footer; empty where it has none.

    Raises:
        RunDirError: the file is missing or damaged.
    """
    with reading(path):
        return mark_of(patiently(partial(pq.read_schema, path)))


def mark_if_whole(path: Path) -> dict[str, Any]:
    """`mark_at`, empty also where the file is missing or its footer damaged.

    Raises:
        RunDirError: the disk fails, so that nobody knows.
    """
    try:
        return mark_of(patiently(partial(pq.read_schema, path)))
    except GONE:
        return {}
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_disk_error(error):
            raise unreadable(path, error) from None
        return {}


def mark_of(schema: pa.Schema) -> dict[str, Any]:
    """The mark in a table's metadata; empty where it has none.

    Raises:
        ValueError: it is damaged.
    """
    mark: object = json.loads((schema.metadata or {}).get(_KEY, b"{}"))
    if not isinstance(mark, dict):
        raise ValueError("its mark is damaged")
    return cast("dict[str, Any]", mark)


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Say of a file that cannot be read what to do about it.

    Raises:
        RunDirError: in the place of what the libraries raise.
    """
    try:
        yield
    except GONE:
        raise RunDirError(f"{path} is missing; run the same command again") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_disk_error(error):
            raise unreadable(path, error) from None
        raise RunDirError(
            f"{path} is damaged ({in_short(error)}); delete it and run again"
        ) from None


def unreadable(path: Path, error: OSError) -> RunDirError:
    """What is said where the disk fails, not the bytes."""
    return RunDirError(
        f"{path} cannot be read: {error.strerror or error}\n"
        "It may well be whole: see to the storage, then run the same command again."
    )


def concat(tables: Iterator[pa.Table] | list[pa.Table]) -> pa.Table:
    """Stack shards into one table, without the marks of the single files."""
    stacked = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables(stacked)
