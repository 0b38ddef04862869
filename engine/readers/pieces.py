"""Files in pieces, each with its lines: JSON lines by byte ranges, all else whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from engine import schema
from engine.config import MAX_ROW_BYTES
from engine.errors import BrokenFileError, PoolError
from engine.readers.archive import read_archive
from engine.readers.files import PoolFile
from engine.readers.json_array import read_array
from engine.readers.jsonl import BOM, BUFFER_BYTES, bounded, read_jsonl
from engine.readers.line import Line
from engine.readers.parquet import read_parquet
from engine.storage import AWAY

PIECE_BYTES: Final = 32 * 2**20
"""What one process reads at a time: a second of work or so, and far more than it takes to start."""

_ARCHIVES: Final = {".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
MAGIC: Final = {
    b"\x1f\x8b": "gzip, so its name must end in .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "zstd, so its name must end in .jsonl.zst",
    b"PAR1": "Parquet, so its name must end in .parquet",
    b"PK\x03\x04": "a zip archive, which has to be unpacked",
    b"\xff\xfe": "UTF-16 text: iconv -f UTF-16 -t UTF-8 mends it",
    b"\xfe\xff": "UTF-16 text: iconv -f UTF-16 -t UTF-8 mends it",
}
"""What text never begins with."""


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
    """The file in pieces, in order: a .jsonl file is cut at any byte, any other is one piece.

    Raises:
        PoolError: the file cannot be looked at.
    """
    with _errors_for_people(file):
        size = file.path.stat().st_size
        whole = not _is_plain(file) or _kind(file.path) is not None
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


def _is_plain(file: PoolFile) -> bool:
    return file.path.name.lower().endswith(".jsonl")


def _kind(path: Path) -> str | None:
    """What a file is by its first bytes, if that is surely no text."""
    with path.open("rb") as stream:
        first = stream.read(max(map(len, MAGIC)))
    return next((kind for magic, kind in MAGIC.items() if first.startswith(magic)), None)


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
    name = path.name.lower()
    archive = next((kind for end, kind in _ARCHIVES.items() if name.endswith(end)), None)
    with _errors_for_people(piece.file):
        is_text = not archive and not name.endswith(".parquet")
        if is_text and not piece.start and (kind := _kind(path)):
            raise BrokenFileError(
                "a pool file is not what its name says",
                str(path),
                f"it is {kind}",
                schema.WRONG_KIND,
                1,
            )
        if _is_plain(piece.file):
            with path.open("rb", buffering=BUFFER_BYTES) as stream:
                prefix = b"" if piece.start else BOM
                yield from read_jsonl(
                    _starting_in(piece, stream, max_row_bytes), prefix, max_row_bytes
                )
        elif archive:
            yield from read_archive(path, archive, max_row_bytes)
        elif name.endswith(".json"):
            yield from read_array(path, max_row_bytes)
        else:
            yield from read_parquet(path, max_row_bytes)


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
