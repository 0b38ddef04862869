"""The files of a pool, and their raw rows with the place of each. No Ray, no formats of rows.

Every line that is not blank comes out once: as a row, or with the reason why it is none. One bad
line costs one line. A file that is one document (a JSON array, Parquet, an archive) and is broken
ends with a `BrokenFileError`, as nothing after the break can be trusted.
"""

from __future__ import annotations

import io
import json
import os
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine import schema
from engine.config import MAX_ROW_BYTES
from engine.errors import BrokenFileError, PoolError
from engine.formats import json_text, json_type

SUFFIXES: Final = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst")
PIECE_BYTES: Final = 32 * 2**20
"""What one process reads at a time: a second of work or so, and far more than it takes to start."""

UNPACKED_BYTES, MAX_RATIO = 2**28, 100
"""An archive may unpack to this much, or to so many times its own size. Text shrinks tenfold; what
shrinks a thousandfold was made to fill somebody's memory."""

_ARCHIVES: Final = {".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
_MAGIC: Final = {
    b"\x1f\x8b": "gzip, so its name must end in .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "zstd, so its name must end in .jsonl.zst",
    b"PAR1": "Parquet, so its name must end in .parquet",
    b"PK\x03\x04": "a zip archive, which has to be unpacked",
    b"\xff\xfe": "UTF-16 text: iconv -f UTF-16 -t UTF-8 mends it",
    b"\xfe\xff": "UTF-16 text: iconv -f UTF-16 -t UTF-8 mends it",
}
"""What text never begins with."""
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
        base = Path(*takewhile(lambda part: not _GLOB.search(part), path.parts))
        files = [_inside(base, _regular(match)) for match in known]
        below = [file for folder in folders for file in _below(folder, base)]
        return files + below or _no_match("the glob matches no pool file", text)
    fix = "check the spelling; paths are relative to the folder the run is started in"
    raise PoolError("a pool path does not exist", str(path), fix)


def _below(folder: Path, base: Path | None = None) -> list[Path]:
    """Every known file below a folder, hidden files and folders left out.

    Args:
        folder: where to look.
        base: what was named, where that is not the folder itself.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        known = (name for name in files if not name.startswith(".") and _is_known(name))
        found += [_inside(base or folder, _regular(Path(parent, name))) for name in known]
    return found


def _inside(folder: Path, file: Path) -> Path:
    """Refuse a link that leads out of what was named: it could lead anywhere."""
    if not file.resolve().is_relative_to(folder.resolve()):
        fix = "name the file itself, if you mean it, or move the link out of the pool"
        raise PoolError(f"a link leads out of {folder}", f"{file} → {file.resolve()}", fix)
    return file


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
        first = stream.read(max(map(len, _MAGIC)))
    return next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), None)


@contextmanager
def _errors_for_people(file: PoolFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        fix = "check that the file is there and may be read"
        raise PoolError(f"a pool file cannot be read: {reason}", str(file.path), fix) from None


# ── which rows ───────────────────────────────────────────────────────────────────────────────────


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
            with path.open("rb", buffering=_BUFFER_BYTES) as stream:
                prefix = b"" if piece.start else _BOM
                yield from _read_jsonl(
                    _starting_in(piece, stream, max_row_bytes), prefix, max_row_bytes
                )
        elif archive:
            yield from _read_archive(path, archive, max_row_bytes)
        elif name.endswith(".json"):
            yield from _read_array(path, max_row_bytes)
        else:
            yield from _read_parquet(path, max_row_bytes)


def _starting_in(piece: Piece, stream: BinaryIO, max_row_bytes: int) -> Iterator[bytes]:
    """The lines that start in the piece, as `_bounded` gives them."""
    at = max(piece.start - 1, 0)
    stream.seek(at)
    if piece.start:
        # The rest of the line before; one as long as this piece leaves it no line, and is not read.
        rest = stream.readline(piece.end - piece.start)
        if not rest.endswith(b"\n"):
            return
        at += len(rest)
    for line, length in _bounded(stream, max_row_bytes):
        yield line
        at += length
        if at >= piece.end:
            return


def _bounded(stream: BinaryIO, max_row_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Every line with its end, and its length; of one that is too large only the beginning."""
    most = max_row_bytes + len(_BOM) + len(b"\r\n")
    while line := stream.readline(most):
        length = len(line)
        if length == most and not line.endswith(b"\n"):
            while rest := stream.readline(_BUFFER_BYTES):
                length += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield line, length


def _read_archive(path: Path, codec: str, max_row_bytes: int) -> Iterator[Line]:
    """JSON lines in gzip or zstd, of one member or several."""
    line = 0
    try:
        size = path.stat().st_size
        if size == 0:
            raise EOFError("the file is empty")
        with _Unpacked(path, codec, max(UNPACKED_BYTES, MAX_RATIO * size)) as unpacked:
            stream = cast(BinaryIO, io.BufferedReader(unpacked, _BUFFER_BYTES))
            lines = (line for line, _ in _bounded(stream, max_row_bytes))
            for found in _read_jsonl(lines, _BOM, max_row_bytes):
                line = found.line
                yield found
    except _TooMuchError as error:
        fix = "unpack it yourself and look at it"
        what = f"a pool file is not read: {error}"
        raise BrokenFileError(what, str(path), fix, schema.UNSAFE_FILE, line + 1) from None
    except (EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's errors, not the archive's
        fix = f"copy or download it again; {codec} --test must pass"
        what = f"a pool file is not whole {codec}: {error}"
        raise BrokenFileError(what, str(path), fix, schema.BROKEN_FILE, line + 1) from None


class _TooMuchError(Exception):
    """An archive unpacks to more than it may."""


class _Unpacked(io.RawIOBase):
    """What an archive unpacks to, up to a limit."""

    def __init__(self, path: Path, codec: str, max_bytes: int) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(str(path)), codec)
        self._max_bytes = self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num = self._stream.readinto(buffer)
        self._left -= num
        if self._left < 0:
            raise _TooMuchError(f"it unpacks to more than {self._max_bytes:,} bytes")
        return num

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read_jsonl(lines: Iterable[bytes], prefix: bytes, max_row_bytes: int) -> Iterator[Line]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(prefix)
        # Only \n ends a line: text may hold every other character that Python splits at.
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > max_row_bytes:
            yield _too_large(number, max_row_bytes)
        elif line and not line.isspace():
            yield _parse(number, line)


def _too_large(number: int, max_row_bytes: int) -> Line:
    return Line(number, None, None, schema.ROW_TOO_LARGE, f"more than {max_row_bytes:,} bytes")


def _parse(number: int, line: bytes) -> Line:
    """One line of JSONL. The hot path of a pool's ingest."""
    try:
        raw = line.decode()
    except UnicodeDecodeError as error:
        return Line(number, None, None, schema.INVALID_UTF8, f"byte {error.start + 1} of the line")
    try:
        row = _decode(raw)
    except _DuplicateKeyError as error:
        return Line(number, None, None, schema.DUPLICATE_KEY, str(error))
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


class _DuplicateKeyError(ValueError):
    """Python's parser keeps the last of the values, others the first."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _DuplicateKeyError("a key comes twice in one object")
    return made


# Built once: json.loads builds a decoder per call when it is given options.
_decode: Final = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object).decode
_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)
"""For elements of an array: what comes behind one that names a key twice can still be found."""


# ── one JSON array ───────────────────────────────────────────────────────────────────────────────


def _read_array(path: Path, max_row_bytes: int) -> Iterator[Line]:
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
        end = _element(path, text, at)[1]
        raw = text[at:end].encode()
        yield _parse(line, raw) if len(raw) <= max_row_bytes else _too_large(line, max_row_bytes)
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
        what, fix = "a pool file is not valid UTF-8", "save it as UTF-8"
        where = f"{path}, line {line}"
        raise BrokenFileError(what, where, fix, schema.BROKEN_FILE, line) from None


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


def _syntax_error(path: Path, text: str, at: int, problem: str) -> BrokenFileError:
    fix = (
        "mend it there, or write one row per line to a .jsonl file, where a bad line costs one row"
    )
    return _broken_array(f"a pool file is not valid JSON: {problem}", path, text, at, fix)


def _broken_array(what: str, path: Path, text: str, at: int, fix: str) -> BrokenFileError:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    where = f"{path}, line {line}, column {column}"
    return BrokenFileError(what, where, fix, schema.BROKEN_FILE, line)


def _not_an_array(path: Path, text: str, at: int) -> BrokenFileError:
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
    return _broken_array(what, path, text, at, fix)


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────


def _read_parquet(path: Path, max_row_bytes: int) -> Iterator[Line]:
    number = 0
    try:
        with open_parquet(path) as table:
            batches = table.iter_batches(batch_size=_BATCH_ROWS)
            rows = chain.from_iterable(map(_rows, batches))
            for number, row in enumerate(rows, start=1):
                yield _parquet_line(number, row, max_row_bytes)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(
            f"a pool file is not readable Parquet: {reason}",
            f"{path}, after row {number}",
            "write or download it again; a Parquet file that was cut short cannot be read at all",
            schema.BROKEN_FILE,
            number + 1,
        ) from None


def _parquet_line(number: int, row: dict[str, Any] | None, max_row_bytes: int) -> Line:
    if row is None:
        problem = "a text cell is not valid UTF-8"
        return Line(number, None, None, schema.INVALID_UTF8, problem)
    raw = json_text(row)
    # No text is shorter in UTF-8 than in characters.
    if len(raw) > max_row_bytes or len(raw.encode("utf-8", "replace")) > max_row_bytes:
        return _too_large(number, max_row_bytes)
    return Line(number, raw, row, None, None)


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of plain types.

    Extension types bring their own code: some libraries register types that unpickle what the
    file's schema holds as soon as it is opened. So the schema's bytes are looked at before.

    Raises:
        BrokenFileError: a column has an extension type.
        pyarrow.ArrowException, OSError: the file is no Parquet.
    """
    if _names_extension_types(path):
        raise BrokenFileError(
            "a pool file is not read: a column has an extension type, which can run code",
            str(path),
            "write it again with plain columns (text, numbers, lists, structs)",
            schema.UNSAFE_FILE,
            1,
        )
    with pa.OSFile(str(path)) as stream, pq.ParquetFile(stream) as table:
        yield table


_FOOTER_END: Final = 8
"""Bytes behind Parquet's footer: its length, and PAR1."""
_ARROW_SCHEMA: Final = re.compile(rb"ARROW:schema.{1,10}?([A-Za-z0-9+/\s]{8,})", re.DOTALL)
_EXTENSION: Final = b"ARROW:extension:name"


def _names_extension_types(path: Path) -> bool:
    """Whether an Arrow schema in the footer names one; decodes nothing but base64."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size < 2 * _FOOTER_END:
            return False
        stream.seek(size - _FOOTER_END)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(max(0, size - _FOOTER_END - length))
        footer = stream.read(min(length, size))
    # What stands between key and value may look like base64 too, so each alignment is tried.
    found = (text.translate(None, b" \t\r\n\x0b\x0c") for text in _ARROW_SCHEMA.findall(footer))
    schemas = (_unpadded(text[start:]) for text in found for start in range(4))
    return any(_EXTENSION in each for each in (footer, *schemas))


def _unpadded(text: bytes) -> bytes:
    """Base64 up to the last group of four characters."""
    return b64decode(text[: len(text) // 4 * 4])


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The batch's rows; None where text is not UTF-8, which Parquet's writers need not check."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]
