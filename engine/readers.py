"""The files of a pool, and their raw rows with the place of each. No Ray, no formats of rows.

Every line that is not blank comes out once: as a row, or with the reason why it is none. One bad
line costs one line. A file that is one document (a JSON array, Parquet, gzip) and is broken stops
with a `PoolError`, as nothing after the break can be trusted.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from engine import schema
from engine.errors import PoolError
from engine.formats import json_text, json_type

SUFFIXES: Final = (".jsonl", ".json", ".parquet", ".jsonl.gz")
PIECE_BYTES: Final = 32 * 2**20
"""What one process reads at a time: a second of work or so, and far more than it takes to start."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_GLOB: Final = re.compile(r"[*?[]")
_JSON_SPACE: Final = re.compile(r"[ \t\n\r]*")
_BOM: Final = b"\xef\xbb\xbf"
_BUFFER_BYTES: Final = 2**20
_BATCH_ROWS: Final = 1024


@dataclass(frozen=True)
class PoolFile:
    """A file of the pool."""

    path: Path
    """Where the file lies, absolute."""
    name: str
    """Path below the common folder of the pool's files, with ``/``; its own name if alone."""


@dataclass(frozen=True)
class Piece:
    """What one process reads of a file: every line that starts in its bytes [start, end).

    So each line belongs to exactly one piece wherever the cuts are, and a piece reads beyond its
    end to finish its last line.
    """

    file: PoolFile
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a piece: raw and row, or reason and detail."""

    line: int
    """Line of the piece from 1; for a JSON array the line its element starts on; for Parquet the
    row."""
    raw: str | None
    """The row's own JSON, byte for byte; for Parquet its JSON encoding."""
    row: dict[str, Any] | None
    reason: str | None
    detail: str | None


# ── which files ──────────────────────────────────────────────────────────────────────────────────


def find_files(paths: Sequence[str]) -> list[PoolFile]:
    """The pool's files, sorted by name, each once however often it is named.

    A folder gives the files below it with a known suffix, hidden ones and linked folders left out;
    a glob gives the known files it matches and those below the folders it matches.

    Raises:
        PoolError: a path is missing, of no known kind, or gives no file.
    """
    if not paths:
        fix = f"name files, folders or globs of {_suffixes()}"
        raise PoolError("the pool names no files", "pool.paths", fix)
    # The folder is resolved, the file's own name is kept: a link may point to a name of no suffix.
    named = {found.parent.resolve() / found.name for path in paths for found in _expand(path)}
    unique: dict[Path, Path] = {}
    for path in sorted(named):
        unique.setdefault(path.resolve(), path)
    common = os.path.commonpath([path.parent for path in unique.values()])
    files = [PoolFile(path, path.relative_to(common).as_posix()) for path in unique.values()]
    return sorted(files, key=lambda file: file.name)


def _expand(text: str) -> list[Path]:
    """The files that one entry of pool.paths stands for."""
    if _SCHEME.match(text):
        fix = "download it first and name the local file; pools are read from disk"
        raise PoolError("a pool path is an address, not a path", text, fix)
    path = Path(text).expanduser() if text else Path("an empty path in pool.paths")
    if path.is_dir():
        return _below(path) or _no_match("the folder holds no pool file", text)
    if os.path.lexists(path):
        if not _is_known(path.name):
            fix = f"convert it, or name a file ending in {_suffixes()}"
            raise PoolError("the file's suffix is none that is known", text, fix)
        return [_regular(path)]
    if _GLOB.search(text):
        # Path.glob takes no absolute pattern, and its * takes hidden files.
        matches = [Path(match) for match in glob(str(path), recursive=True)]  # noqa: PTH207
        folders = [match for match in matches if match.is_dir()]
        known = [match for match in matches if not match.is_dir() and _is_known(match.name)]
        files = [_regular(match) for match in known]
        below = [file for folder in folders for file in _below(folder)]
        return files + below or _no_match("the glob matches no pool file", text)
    fix = "check the spelling; paths are relative to the folder the run is started in"
    raise PoolError("a pool path does not exist", str(path), fix)


def _below(folder: Path) -> list[Path]:
    """Every known file below a folder, hidden files and folders left out."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        known = (name for name in files if not name.startswith(".") and _is_known(name))
        found += [_regular(Path(parent, name)) for name in known]
    return found


def _stop(error: OSError) -> NoReturn:
    """os.walk leaves out what it cannot list, and rows would be missing without a word."""
    raise PoolError(
        f"a folder cannot be listed: {error.strerror}",
        str(error.filename),
        "give it read permission, or name the files you mean",
    )


def _regular(path: Path) -> Path:
    if not path.is_file():
        fix = "repair the link, or move it out of the pool"
        raise PoolError("this is no regular file (a broken link, a pipe?)", str(path), fix)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        fix = "rename it: its name becomes a column of the pool"
        raise PoolError("a file name is not valid UTF-8", repr(os.fsencode(path)), fix) from None
    return path


def _is_known(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _suffixes() -> str:
    return ", ".join(SUFFIXES)


def _no_match(what: str, where: str) -> NoReturn:
    raise PoolError(what, where, f"known suffixes are {_suffixes()}; hidden files are left out")


# ── which pieces ─────────────────────────────────────────────────────────────────────────────────


def cut(file: PoolFile, max_bytes: int = PIECE_BYTES) -> list[Piece]:
    """The file in pieces, in order: a .jsonl file is cut at any byte, any other is one piece.

    Raises:
        PoolError: the file cannot be looked at.
    """
    with _errors_for_people(file):
        size = file.path.stat().st_size
    step = max_bytes if _is_plain(file) else max(size, 1)
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


@contextmanager
def _errors_for_people(file: PoolFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        fix = "check that the file is there and may be read"
        raise PoolError(f"a pool file cannot be read: {reason}", str(file.path), fix) from None


# ── which rows ───────────────────────────────────────────────────────────────────────────────────


def read_lines(piece: Piece) -> Iterator[Line]:
    """Every line of the piece that is not blank, in order, as it is read.

    Raises:
        PoolError: the file cannot be read, or is one broken document; lines may have come before.
    """
    path = piece.file.path
    name = path.name.lower()
    with _errors_for_people(piece.file):
        if _is_plain(piece.file):
            with path.open("rb", buffering=_BUFFER_BYTES) as stream:
                prefix = b"" if piece.start else _BOM
                yield from _read_jsonl(_starting_in(piece, stream), prefix)
        elif name.endswith(".jsonl.gz"):
            yield from _read_gzip(path)
        elif name.endswith(".json"):
            yield from _read_array(path)
        else:
            yield from _read_parquet(path)


def _starting_in(piece: Piece, stream: BinaryIO) -> Iterator[bytes]:
    """The lines that start in the piece, each with its end."""
    at = max(piece.start - 1, 0)
    stream.seek(at)
    if piece.start:
        # The rest of the line before; one as long as this piece leaves it no line, and is not read.
        rest = stream.readline(piece.end - piece.start)
        if not rest.endswith(b"\n"):
            return
        at += len(rest)
    for line in stream:
        yield line
        at += len(line)
        if at >= piece.end:
            return


def _read_gzip(path: Path) -> Iterator[Line]:
    try:
        if path.stat().st_size == 0:  # which Python takes for an empty archive, and gzip does not
            raise EOFError("the file is empty")
        with gzip.open(path, "rb") as archive:
            # The archive's own readline is Python, a reader around it is C.
            yield from _read_jsonl(io.BufferedReader(archive, _BUFFER_BYTES), _BOM)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fix = "copy or download it again; gzip --test must pass"
        what = f"a pool file is not whole gzip: {error}"
        raise PoolError(what, str(path), fix) from None


def _read_jsonl(lines: Iterable[bytes], prefix: bytes) -> Iterator[Line]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(prefix)
        # Only \n ends a line: text may hold every other character that Python splits at.
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line and not line.isspace():
            yield _parse(number, line)


def _parse(number: int, line: bytes) -> Line:
    """One line of JSONL. The hot path of a pool's ingest."""
    try:
        raw = line.decode()
    except UnicodeDecodeError as error:
        return Line(number, None, None, schema.INVALID_UTF8, f"byte {error.start + 1} of the line")
    try:
        row = _decode(raw)
    except (ValueError, RecursionError) as error:
        return Line(number, None, None, schema.INVALID_JSON, _problem(error))
    if type(row) is not dict:
        return Line(number, None, None, schema.NOT_AN_OBJECT, json_type(row))
    return Line(number, raw, row, None, None)


def _problem(error: ValueError | RecursionError) -> str:
    """What the JSON parser found, without the text it found it in."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.rstrip(': ')}, character {error.pos + 1}"
    if isinstance(error, _NotJsonError):
        return str(error)
    # Python refuses to turn very long digit strings into numbers: the time it takes is quadratic.
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


class _NotJsonError(ValueError):
    """NaN and its kin, which Python's parser takes for JSON."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJsonError(f"{name} is not JSON")


# Built once: json.loads builds a decoder per call when it is given options.
_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_decode: Final = _decoder.decode


# ── one JSON array ───────────────────────────────────────────────────────────────────────────────


def _read_array(path: Path) -> Iterator[Line]:
    """A .json file: one array of objects. The whole document is held in memory."""
    text = _document(path)
    at = _skip_space(text, 0)
    if text[at : at + 1] != "[":
        raise _not_an_array(path, text, at)
    at = _skip_space(text, at + 1)
    line, counted = 1, 0
    mark = "]" if text.startswith("]", at) else ","
    if mark == "]":
        at = _skip_space(text, at + 1)
    while mark != "]":
        line += text.count("\n", counted, at)
        counted = at
        row, end = _element(path, text, at)
        if type(row) is dict:
            yield Line(line, text[at:end], row, None, None)
        else:
            yield Line(line, None, None, schema.NOT_AN_OBJECT, json_type(row))
        end = _skip_space(text, end)
        mark = text[end : end + 1]
        if mark not in (",", "]"):
            raise _syntax_error(path, text, end, "Expecting ',' or ']'")
        at = _skip_space(text, end + 1)
    if at < len(text):
        raise _syntax_error(path, text, at, "Extra data after the array")


def _document(path: Path) -> str:
    data = path.read_bytes().removeprefix(_BOM)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fix = "save it as UTF-8"
        raise PoolError("a pool file is not valid UTF-8", f"{path}, line {line}", fix) from None


def _element(path: Path, text: str, at: int) -> tuple[object, int]:
    try:
        return _decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _syntax_error(path, text, error.pos, error.msg.rstrip(": ")) from None
    except (ValueError, RecursionError) as error:
        raise _syntax_error(path, text, at, _problem(error)) from None


def _skip_space(text: str, at: int) -> int:
    match = _JSON_SPACE.match(text, at)
    return match.end() if match else at


def _syntax_error(path: Path, text: str, at: int, problem: str) -> PoolError:
    fix = (
        "mend it there, or write one row per line to a .jsonl file, where a bad line costs one row"
    )
    return PoolError(f"a pool file is not valid JSON: {problem}", _place(path, text, at), fix)


def _place(path: Path, text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return f"{path}, line {line}, column {column}"


def _not_an_array(path: Path, text: str, at: int) -> PoolError:
    if at == len(text):
        return _syntax_error(path, text, at, "the file is empty")
    value, end = _element(path, text, at)
    after = _skip_space(text, end)
    if after == len(text):
        fix = "write the rows as one array, or one row per line to a .jsonl file"
    elif type(value) is dict and text.startswith("{", after):
        fix = "these look like JSON lines: rename the file to .jsonl"
    else:
        return _syntax_error(path, text, after, "Extra data")
    what = f"a .json pool file must be one array of objects, and this one is {json_type(value)}"
    return PoolError(what, _place(path, text, at), fix)


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────


def _read_parquet(path: Path) -> Iterator[Line]:
    number = 0
    try:
        with pa.OSFile(str(path)) as stream, pq.ParquetFile(stream) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for row in _rows(batch):
                    number += 1
                    if row is None:
                        problem = "a text cell is not valid UTF-8"
                        yield Line(number, None, None, schema.INVALID_UTF8, problem)
                    else:
                        yield Line(number, json_text(row), row, None, None)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        fix = "write or download it again; a Parquet file that was cut short cannot be read at all"
        where = f"{path}, after row {number}"
        raise PoolError(f"a pool file is not readable Parquet: {reason}", where, fix) from None


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The batch's rows; None where text is not UTF-8, which Parquet's writers need not check."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]
