"""A random sample of a pool's lines, and how many lines there are, without parsing the rest.

Plain JSON lines are counted by newlines, a block at a time; Parquet knows its number of rows. Only
gzip and JSON arrays have to be read through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import readers
from engine.errors import PoolError
from engine.formats import json_text
from engine.readers import PoolFile

Lines = npt.NDArray[np.int64]
"""int64[n]: places of lines in a file, from 0, ascending."""
Take = Callable[[Lines], list[bytes]]
"""Reads the lines at some places."""

NO_ROW = b"null"
"""Stands for a line of a Parquet file or an array that is no row: it is rejected just so."""
_BLOCK_BYTES = 2**18


@dataclass(frozen=True)
class Sample:
    """Some lines of a pool."""

    lines: list[bytes]
    """JSON of each, or what stands in its place; in the pool's order."""
    num_lines: int
    """Lines of the whole pool, blank ones included."""

    @property
    def is_whole(self) -> bool:
        """The sample is the pool."""
        return len(self.lines) == self.num_lines


def draw(paths: tuple[str, ...], num_lines: int, seed: int) -> Sample:
    """A random sample of the pool's lines, each line equally likely, none twice.

    Args:
        paths: files, folders and globs, as `readers.find_files` takes them.
        num_lines: how many to draw; all of them where the pool has no more.
        seed: decides which.

    Raises:
        PoolError: a file is missing or cannot be read.
    """
    sources = [_open(file) for file in readers.find_files(paths)]
    ends = np.cumsum([count for count, _ in sources])
    total = int(ends[-1])
    chosen = np.random.default_rng(seed).choice(total, min(num_lines, total), replace=False)
    chosen.sort()
    lines: list[bytes] = []
    for (count, take), end in zip(sources, ends, strict=True):
        start = end - count
        inside = chosen[(chosen >= start) & (chosen < end)] - start
        lines += take(inside) if len(inside) else []
    return Sample(lines, total)


def _open(file: PoolFile) -> tuple[int, Take]:
    """Number of lines of a file, and how to read some of them."""
    name = file.path.name.lower()
    try:
        if name.endswith(".jsonl"):
            return _open_jsonl(file.path)
        if name.endswith(".parquet"):
            return _open_parquet(file.path)
    except (OSError, ValueError, pa.ArrowException) as error:
        fix = "check that the file is there, whole, and may be read"
        raise PoolError(f"a pool file cannot be read: {error}", str(file.path), fix) from None
    return sum(1 for _ in _lines(file)), lambda wanted: _take_read(file, wanted)


def _open_jsonl(path: Path) -> tuple[int, Take]:
    per_block: list[int] = []
    last = b"\n"
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK_BYTES):
            per_block.append(block.count(b"\n"))
            last = block[-1:]
    before = np.concatenate([[0], np.cumsum(per_block, dtype=np.int64)])
    count = int(before[-1]) + (last != b"\n")
    return count, lambda wanted: _take_jsonl(path, wanted, before)


def _take_jsonl(path: Path, wanted: Lines, before: Lines) -> list[bytes]:
    """Lines of a JSONL file; `before`: newlines before each block."""
    lines: list[bytes] = []
    with path.open("rb") as stream:
        for line in wanted.tolist():
            start = 0
            if line:  # it begins behind the newline number `line`, counted from 1
                block = int(np.searchsorted(before, line)) - 1
                stream.seek(block * _BLOCK_BYTES)
                bytes_ = np.frombuffer(stream.read(_BLOCK_BYTES), dtype=np.uint8)
                newlines = np.flatnonzero(bytes_ == ord("\n"))
                start = block * _BLOCK_BYTES + int(newlines[line - int(before[block]) - 1]) + 1
            stream.seek(start)
            lines.append(stream.readline().removesuffix(b"\n"))
    return lines


def _open_parquet(path: Path) -> tuple[int, Take]:
    return _num_rows(path), lambda wanted: _take_parquet(path, wanted)


def _num_rows(path: Path) -> int:
    with readers.open_parquet(path) as table:
        return table.num_rows


def _take_parquet(path: Path, wanted: Lines) -> list[bytes]:
    """Rows of a Parquet file. Every batch is decoded, only the wanted rows become objects."""
    lines: list[bytes] = []
    start = 0
    with readers.open_parquet(path) as table:
        for batch in table.batches():
            end = start + batch.num_rows
            inside = wanted[(wanted >= start) & (wanted < end)] - start
            lines += [_as_json(batch, place) for place in inside.tolist()]
            start = end
    return lines


def _as_json(batch: pa.RecordBatch, place: int) -> bytes:
    try:
        return json_text(batch.slice(place, 1).to_pylist()[0]).encode()
    except UnicodeDecodeError:  # Parquet's writers need not check their text
        return NO_ROW


def _lines(file: PoolFile) -> Iterator[readers.Line]:
    """Every line of a file that is read from its beginning."""
    return (line for piece in readers.cut(file) for line in readers.read_lines(piece))


def _take_read(file: PoolFile, wanted: Lines) -> list[bytes]:
    """Lines of a file that can only be read from its beginning."""
    places: Iterator[int] = iter(wanted.tolist())
    lines: list[bytes] = []
    place = next(places)
    for number, line in enumerate(_lines(file)):
        if number == place:
            lines.append(NO_ROW if line.raw is None else line.raw.encode())
            place = next(places, -1)
            if place < 0:
                break
    return lines
