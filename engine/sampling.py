"""A random sample of a pool's lines, and how many lines there are, without parsing the rest.

JSON lines are counted by newlines, a block at a time; Parquet and Arrow say how many rows they
have. Only archives, JSON documents and CSV have to be read through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import readers
from engine.config import MAX_ROW_BYTES
from engine.errors import BrokenFileError, PoolError
from engine.formats import json_text
from engine.readers import PoolFile
from engine.readers.jsonl import BOM
from engine.readers.kinds import Kind
from engine.readers.table import least_bytes, objects
from engine.storage import is_disk_error

Lines = npt.NDArray[np.int64]
"""int64[n]: places of lines in a file, from 0, ascending."""
Drawn = tuple[int, bytes]
"""Number of a line in its file, from 1, and the line."""
Take = Callable[[Lines], Iterator[Drawn]]
"""Reads the lines at some places."""
Advance = Callable[[int], None]
"""Told how many bytes of the pool were looked through since, and that the work goes on."""

NO_ROW = b"null"
"""Stands for a line of a table, an archive or a document that is no row: it is rejected just so."""
_BLOCK_BYTES = 2**18
_TICK_LINES = 1024


@dataclass(frozen=True)
class Sample:
    """Some lines of a pool."""

    lines: list[bytes]
    """JSON of each, or what stands in its place; in the pool's order."""
    num_lines: int
    """Lines of the whole pool, blank ones included."""
    places: list[str]
    """The file of each line, and its number there, for people."""

    @property
    def is_whole(self) -> bool:
        """The sample is the pool."""
        return len(self.lines) == self.num_lines


def draw(
    paths: tuple[str, ...],
    num_lines: int,
    seed: int,
    keep_broken_files: bool = False,
    advance: Advance = lambda _: None,
) -> Sample:
    """A random sample of the pool's lines, each line equally likely, none twice.

    Args:
        paths: files, folders and globs, as `readers.find_files` takes them.
        num_lines: how many to draw; all of them where the pool has no more.
        seed: decides which.
        keep_broken_files: whether what comes before the break of a broken file counts.
        advance: called as the files are looked through.

    Raises:
        PoolError: a file is missing, broken or cannot be read.
    """
    files = readers.find_files(paths)
    sources = [_open(file, keep_broken_files, advance) for file in files]
    ends = np.cumsum([count for count, _ in sources])
    total = int(ends[-1])
    chosen = np.random.default_rng(seed).choice(total, min(num_lines, total), replace=False)
    chosen.sort()
    lines: list[bytes] = []
    places: list[str] = []
    for file, (count, take), end in zip(files, sources, ends, strict=True):
        start = end - count
        inside = chosen[(chosen >= start) & (chosen < end)] - start
        if not len(inside):
            continue
        with _named(file, keep_broken_files):
            for number, line in take(inside):
                advance(0)
                lines.append(line)
                places.append(f"{file.name}, line {number}")
    return Sample(lines, total, places)


@contextmanager
def _named(file: PoolFile, keep_broken: bool) -> Iterator[None]:
    """Errors name the file; where broken ones are kept, only those of the disk are left."""
    try:
        yield
    except BrokenFileError:
        if not keep_broken:
            raise
    except (OSError, ValueError, pa.ArrowException) as error:
        if keep_broken and not is_disk_error(error):
            return
        reason = str(error).splitlines()[0]
        fix = "check that the file is there, whole, and may be read"
        raise PoolError(f"a pool file cannot be read: {reason}", str(file.path), fix) from None


def _open(file: PoolFile, keep_broken: bool, advance: Advance) -> tuple[int, Take]:
    """Number of lines of a file, and how to read some of them."""
    found: tuple[int, Take] = 0, lambda _: iter(())
    with _named(file, keep_broken):
        if problem := readers.problem_of(file):
            raise problem
        kind = readers.kind(file)
        if kind == Kind("lines"):
            return _open_lines(file.path, advance)
        path = file.path
        if kind.content == "parquet":
            found = readers.num_parquet_rows(path), partial(_take_table, readers.open_parquet, path)
        elif kind.content == "arrow":
            found = (
                _num_arrow_rows(path, keep_broken),
                partial(_take_table, readers.open_arrow, path),
            )
        else:
            found = _num_read(file, keep_broken, advance), partial(_take_read, file, advance)
    advance(file.path.stat().st_size)
    return found


# ── JSON lines ───────────────────────────────────────────────────────────────────────────────────


def _open_lines(path: Path, advance: Advance) -> tuple[int, Take]:
    per_block: list[int] = []
    last = b"\n"
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK_BYTES):
            per_block.append(block.count(b"\n"))
            last = block[-1:]
            advance(len(block))
    before = np.concatenate([[0], np.cumsum(per_block, dtype=np.int64)])
    count = int(before[-1]) + (last != b"\n")
    return count, partial(_take_lines, path, before)


def _take_lines(path: Path, before: Lines, wanted: Lines) -> Iterator[Drawn]:
    """Lines of a file of JSON lines; `before`: newlines before each block."""
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
            text = stream.readline().removesuffix(b"\n")
            yield line + 1, text if line else text.removeprefix(BOM)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def _num_arrow_rows(path: Path, keep_broken: bool) -> int:
    with readers.open_arrow(path) as table:
        if table.messages.problem and not keep_broken:
            raise ValueError(table.messages.problem)
        return table.num_rows


def _take_table(
    open_table: Callable[[Path], AbstractContextManager[Any]], path: Path, wanted: Lines
) -> Iterator[Drawn]:
    """Rows of a table. Every batch is decoded, only the wanted rows become objects."""
    start = 0
    with open_table(path) as table:
        for batch in table.batches():
            end = start + batch.num_rows
            for place in wanted[(wanted >= start) & (wanted < end)].tolist():
                yield place + 1, _as_json(batch, place - start)
            start = end
            if start > wanted[-1]:
                break


def _as_json(batch: pa.RecordBatch, place: int) -> bytes:
    row = batch.slice(place, 1)
    if least_bytes(row.to_struct_array())[0] > MAX_ROW_BYTES:
        return NO_ROW  # it would be rejected unread
    found = objects(row)  # None for text that is not UTF-8, as Parquet's writers need not check it
    return json_text(found[0]).encode() if found else NO_ROW


# ── what is read from its beginning ──────────────────────────────────────────────────────────────


def _lines(file: PoolFile, advance: Advance) -> Iterator[readers.Line]:
    """Every line of a file that is read from its beginning."""
    for piece in readers.cut(file):
        for number, line in enumerate(readers.read_lines(piece)):
            if not number % _TICK_LINES:
                advance(0)
            yield line


def _num_read(file: PoolFile, keep_broken: bool, advance: Advance) -> int:
    count = 0
    with _named(file, keep_broken):
        for _ in _lines(file, advance):
            count += 1
    return count


def _take_read(file: PoolFile, advance: Advance, wanted: Lines) -> Iterator[Drawn]:
    """Lines of a file that can only be read from its beginning."""
    places: Iterator[int] = iter(wanted.tolist())
    place = next(places)
    for number, line in enumerate(_lines(file, advance)):
        if number == place:
            yield line.line, NO_ROW if line.raw is None else line.raw.encode()
            place = next(places, -1)
            if place < 0:
                break
