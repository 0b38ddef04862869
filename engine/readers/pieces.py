"""Files in pieces, each with its lines: JSON lines by byte ranges, all else whole.

JSON lines may be in a .json file too: its first lines tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from engine import schema
from engine.config import MAX_ROW_BYTES
from engine.errors import BrokenFileError, PoolError
from engine.readers.archive import read_archive
from engine.readers.arrow import read_arrow
from engine.readers.delimited import read_delimited
from engine.readers.files import PoolFile
from engine.readers.json_array import read_document
from engine.readers.jsonl import BOM, BUFFER_BYTES, bounded, read_jsonl
from engine.readers.kinds import HEAD_BYTES, Content, Kind, are_lines, kind_of, wrong_kind
from engine.readers.line import Line
from engine.readers.parquet import read_parquet
from engine.storage import AWAY

PIECE_BYTES: Final = 32 * 2**20
"""What one process reads at a time: a second of work or so, and far more than it takes to start."""


@dataclass(frozen=True)
class Piece:
    """What one process reads of a file: every line that starts in its bytes [start, end).

    So each line belongs to exactly one piece wherever the cuts are, and a piece reads beyond its
    end to finish its last line.
    """

    file: PoolFile
    start: int
    end: int


def cut(file: PoolFile, max_bytes: int = PIECE_BYTES) -> list[Piece]:
    """The file in pieces, in order: JSON lines are cut at any byte, any other file is one piece.

    Raises:
        PoolError: the file cannot be looked at.
    """
    with _errors_for_people(file):
        size = file.path.stat().st_size
        whole = not _is_plain(file) or problem_of(file) is not None
    step = max(size, 1) if whole else max_bytes
    starts = range(0, max(size, 1), step)  # an empty file is a piece too: its kind may mind
    return [Piece(file, start, min(start + step, size)) for start in starts]


def count_lines(piece: Piece) -> int:
    """Lines of a piece, blank ones too: how far the lines of the next piece are off.

    0 for a file that is not cut, as no piece follows there.

    Raises:
        PoolError: the file cannot be read.
    """
    if not _is_plain(piece.file) or piece.start == piece.end:
        return 0
    # A line starts at the first byte, and behind every \n.
    before = max(piece.start - 1, 0)
    with _errors_for_people(piece.file), piece.file.path.open("rb") as stream:
        stream.seek(before)
        num = stream.read(piece.end - 1 - before).count(b"\n")
    return num + (piece.start == 0)


def kind(file: PoolFile) -> Kind:
    """What a file's name says of it; JSON lines in a .json file are lines."""
    found = kind_of(file.path.name)
    assert found is not None, "no other file is in a pool"
    if found == Kind("json"):
        with file.path.open("rb", buffering=BUFFER_BYTES) as stream:
            if are_lines(line for line, _ in bounded(stream, MAX_ROW_BYTES)):
                return Kind("lines")
    return found


def _is_plain(file: PoolFile) -> bool:
    return kind(file) == Kind("lines")


def problem_of(file: PoolFile) -> BrokenFileError | None:
    """What a file is by its first bytes, if that is surely not what its name says."""
    found = kind_of(file.path.name)
    assert found is not None, "no other file is in a pool"
    with file.path.open("rb") as stream:
        what = wrong_kind(stream.read(HEAD_BYTES), found)
    return _wrong_kind(file.path, what) if what else None


def _wrong_kind(path: Path, what: str) -> BrokenFileError:
    return BrokenFileError(
        f"a pool file is not what its name says: it is {what}",
        str(path),
        f"it is {what}",
        schema.WRONG_KIND,
        1,
    )


@contextmanager
def _errors_for_people(file: PoolFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in AWAY:
            error.filename = error.filename or str(file.path)
            raise  # whoever reads may begin again
        reason = error.strerror or str(error)
        fix = "check that the file is there and may be read"
        raise PoolError(f"a pool file cannot be read: {reason}", str(file.path), fix) from None


def read_lines(piece: Piece, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[Line]:
    """Every line of the piece that is not blank, in order, as it is read.

    Args:
        piece: what to read.
        max_row_bytes: larger rows are rejected.

    Raises:
        PoolError: the file cannot be read.
        BrokenFileError: it is broken as a whole, or from some line on; lines may have come before.
    """
    path = piece.file.path
    with _errors_for_people(piece.file):
        if not piece.start and (problem := problem_of(piece.file)):
            raise problem
        found = kind(piece.file)
        if found == Kind("lines"):
            with path.open("rb", buffering=BUFFER_BYTES) as stream:
                prefix = b"" if piece.start else BOM
                yield from read_jsonl(
                    _starting_in(piece, stream, max_row_bytes), prefix, max_row_bytes
                )
        elif found.content == "parquet":
            yield from read_parquet(path, max_row_bytes)
        elif found.content == "arrow":
            yield from read_arrow(path, max_row_bytes)
        elif found.codec:
            read = partial(_read_text, path, found.content, max_row_bytes)
            yield from read_archive(path, found.codec, read)
        else:
            with path.open("rb", buffering=BUFFER_BYTES) as stream:
                yield from _read_text(path, found.content, max_row_bytes, stream)


def _read_text(
    path: Path, content: Content, max_row_bytes: int, stream: BinaryIO
) -> Iterator[Line]:
    """All lines of a text, from its beginning."""
    if content in ("csv", "tsv"):
        yield from read_delimited(path, stream, content, max_row_bytes)
        return
    before: list[bytes] = []
    if content == "json":
        # Lines are looked at as a whole here, and kept: an archive can't be read twice.
        unlimited = iter(stream.readline, b"")
        if not are_lines(_kept(unlimited, before)):
            data = b"".join([*before, stream.read()])
            before.clear()
            yield from read_document(path, data, max_row_bytes)
            return
    lines = chain(before, (line for line, _ in bounded(stream, max_row_bytes)))
    yield from read_jsonl(lines, BOM, max_row_bytes)


def _kept(lines: Iterator[bytes], into: list[bytes]) -> Iterator[bytes]:
    """The lines, each put down as it goes by."""
    for line in lines:
        into.append(line)
        yield line


def _starting_in(piece: Piece, stream: BinaryIO, max_row_bytes: int) -> Iterator[bytes]:
    """The lines that start in the piece, as `bounded` gives them."""
    at = max(piece.start - 1, 0)
    stream.seek(at)
    if piece.start:
        # The rest of the line before; one as long as this piece leaves it no line, and is not read.
        rest = stream.readline(piece.end - piece.start)
        if not rest.endswith(b"\n"):
            return
        at += len(rest)
    for line, length in bounded(stream, max_row_bytes):
        yield line
        at += length
        if at >= piece.end:
            return
