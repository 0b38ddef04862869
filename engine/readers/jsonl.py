"""JSON lines: where a line ends, and what is wrong with one that is no row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, NoReturn

from engine import schema
from engine.formats import json_type
from engine.readers.line import Line, too_large

BOM: Final = b"\xef\xbb\xbf"
BUFFER_BYTES: Final = 2**20


def bounded(stream: BinaryIO, max_row_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Every line with its end, and its length; of one that is too large only the beginning."""
    most = max_row_bytes + len(BOM) + len(b"\r\n")
    while line := stream.readline(most):
        length = len(line)
        if length == most and not line.endswith(b"\n"):
            while rest := stream.readline(BUFFER_BYTES):
                length += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield line, length


def read_jsonl(lines: Iterable[bytes], prefix: bytes, max_row_bytes: int) -> Iterator[Line]:
    """Lines that are not blank, parsed; `prefix` is taken off the first one."""
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(prefix)
        # Only \n ends a line: text may hold every other character that Python splits at.
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > max_row_bytes:
            yield too_large(number, max_row_bytes)
        elif line and not line.isspace():
            yield parse(number, line)


def parse(number: int, line: bytes) -> Line:
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
        return Line(number, None, None, schema.INVALID_JSON, problem(error))
    if type(row) is not dict:
        return Line(number, None, None, schema.NOT_AN_OBJECT, json_type(row))
    return Line(number, raw, row, None, None)


def problem(error: ValueError | RecursionError) -> str:
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
decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)
"""For elements of an array: what comes behind one that names a key twice can still be found."""
