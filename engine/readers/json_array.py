"""A .json file: one array of objects. The whole document is held in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engine import schema
from engine.errors import BrokenFileError
from engine.formats import json_type
from engine.readers.jsonl import BOM, decoder, parse, problem
from engine.readers.line import Line, too_large

_JSON_SPACE: Final = re.compile(r"[ \t\n\r]*")


def read_array(path: Path, max_row_bytes: int) -> Iterator[Line]:
    """Each element of the array, with the line it starts on."""
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
        yield parse(line, raw) if len(raw) <= max_row_bytes else too_large(line, max_row_bytes)
        end = _skip_space(text, end)
        mark = text[end : end + 1]
        if mark not in (",", "]"):
            raise _syntax_error(path, text, end, "Expecting ',' or ']'")
        at = _skip_space(text, end + 1)
    if at < len(text):
        raise _syntax_error(path, text, at, "Extra data after the array")


def _document(path: Path) -> str:
    data = path.read_bytes().removeprefix(BOM)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what, fix = "a pool file is not valid UTF-8", "save it as UTF-8"
        where = f"{path}, line {line}"
        raise BrokenFileError(what, where, fix, schema.BROKEN_FILE, line) from None


def _element(path: Path, text: str, at: int) -> tuple[object, int]:
    try:
        return decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _syntax_error(path, text, error.pos, error.msg.rstrip(": ")) from None
    except (ValueError, RecursionError) as error:
        raise _syntax_error(path, text, at, problem(error)) from None


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
