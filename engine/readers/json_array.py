"""A .json file that is one document: an array of rows, an object around one, or a single row.

The whole document is held in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from engine import schema
from engine.errors import BrokenFileError
from engine.formats import RowError, json_type, to_conversation
from engine.readers.jsonl import BOM, decoder, parse, problem
from engine.readers.line import Line, too_large

ROW_KEYS: Final = (
    *("data", "train", "rows", "examples", "instances", "samples", "items", "records"),
    *("dataset", "test", "validation"),
)
"""Under one of these an object holds the rows."""
_JSON_SPACE: Final = re.compile(r"[ \t\n\r]*")


def read_document(path: Path, data: bytes, max_row_bytes: int) -> Iterator[Line]:
    """Each row of the document, with the line it starts on.

    Raises:
        BrokenFileError: it is not valid JSON, or none of the three.
    """
    text = _text(path, data)
    at = _skip_space(text, 0)
    if text.startswith("{", at):
        yield from _read_object(path, text, at, max_row_bytes)
    elif text.startswith("[", at):
        yield from _read_array(path, text, at, max_row_bytes, is_all=True)
    else:
        raise _no_rows(path, text, at)


def _text(path: Path, data: bytes) -> str:
    data = data.removeprefix(BOM)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what, fix = "a pool file is not valid UTF-8", "save it as UTF-8"
        where = f"{path}, line {line}"
        raise BrokenFileError(what, where, fix, schema.BROKEN_FILE, line) from None


# ── an array ─────────────────────────────────────────────────────────────────────────────────────


def _read_array(path: Path, text: str, at: int, max_row_bytes: int, is_all: bool) -> Iterator[Line]:
    """The elements of the array at a place, which may be all there is."""
    line, counted = 1, 0
    for start, end in _spans(path, text, at):
        if start < end:
            line += text.count("\n", counted, start)
            counted = start
            raw = text[start:end].encode()
            yield parse(line, raw) if len(raw) <= max_row_bytes else too_large(line, max_row_bytes)
        elif is_all and end < len(text):
            raise _syntax_error(path, text, end, "Extra data after the array")


def _spans(path: Path, text: str, at: int) -> Iterator[tuple[int, int]]:
    """Where each element of the array at a place begins and ends; at last the place behind the
    array and the space that follows it, twice.
    """
    at = _skip_space(text, at + 1)
    mark = "]" if text.startswith("]", at) else ","
    end = at
    while mark != "]":
        end = _element(path, text, at)[1]
        yield at, end
        end = _skip_space(text, end)
        mark = text[end : end + 1]
        if mark not in (",", "]"):
            raise _syntax_error(path, text, end, "Expecting ',' or ']'")
        at = _skip_space(text, end + 1)
    at = _skip_space(text, end + 1)
    yield at, at


# ── one object ───────────────────────────────────────────────────────────────────────────────────


def _read_object(path: Path, text: str, at: int, max_row_bytes: int) -> Iterator[Line]:
    """The rows under the one key of `ROW_KEYS` that holds some; without one the object is a row.

    Where that key's list is not the only one of objects, nobody knows which is meant, unless the
    object is a conversation itself.
    """
    lists: dict[str, int] = {}
    is_row = False
    for key, start, end in _members(path, text, at):
        if key is None:
            if end < len(text):
                raise _syntax_error(path, text, end, "Extra data")
            break
        if text.startswith("[", start) and _holds_rows(text, start):
            lists[key] = start
        is_row |= text.startswith('"', start) or key.startswith(("messages", "conversation"))
    if lists.keys().isdisjoint(ROW_KEYS):
        lists = {}
    if is_row and (not lists or _is_conversation(text, at, max_row_bytes)):
        line, raw = text.count("\n", 0, at) + 1, text[at:].rstrip(" \t\n\r").encode()
        yield parse(line, raw) if len(raw) <= max_row_bytes else too_large(line, max_row_bytes)
    elif len(lists) == 1:
        (start,) = lists.values()
        yield from _read_array(path, text, start, max_row_bytes, is_all=False)
    else:
        raise _no_rows(path, text, at, list(lists))


def _is_conversation(text: str, at: int, max_row_bytes: int) -> bool:
    """Whether the object at a place is a row in a format that is known by its keys."""
    if len(text) - at > max_row_bytes:
        return False
    try:
        to_conversation(json.loads(text[at:]))
    except (RowError, ValueError, RecursionError):
        return False
    return True


def _members(path: Path, text: str, at: int) -> Iterator[tuple[str | None, int, int]]:
    """Key of each member of the object at a place, and where its value begins and ends; at last no
    key, and the place behind the object and the space that follows it, twice.
    """
    at = _skip_space(text, at + 1)
    mark = "}" if text.startswith("}", at) else ","
    end = at
    while mark != "}":
        if not text.startswith('"', at):
            raise _syntax_error(path, text, at, "Expecting property name enclosed in double quotes")
        key, end = _element(path, text, at)
        colon = _skip_space(text, end)
        if not text.startswith(":", colon):
            raise _syntax_error(path, text, colon, "Expecting ':' delimiter")
        start = _skip_space(text, colon + 1)
        end = _end_of(path, text, start)
        yield str(key), start, end
        end = _skip_space(text, end)
        mark = text[end : end + 1]
        if mark not in (",", "}"):
            raise _syntax_error(path, text, end, "Expecting ',' delimiter")
        at = _skip_space(text, end + 1)
    at = _skip_space(text, end + 1)
    yield None, at, at


def _end_of(path: Path, text: str, at: int) -> int:
    """Where a value ends; a long list is never held as a whole."""
    if not text.startswith("[", at):
        return _element(path, text, at)[1]
    behind = max(end for _, end in _spans(path, text, at))
    return text.rindex("]", at, behind) + 1


def _holds_rows(text: str, at: int) -> bool:
    """Whether the array at a place holds objects, by its first element."""
    first = _skip_space(text, at + 1)
    return text.startswith("{", first)


# ── values, and errors ───────────────────────────────────────────────────────────────────────────


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
    return _broken(f"a pool file is not valid JSON: {problem}", path, text, at, fix)


def _broken(what: str, path: Path, text: str, at: int, fix: str) -> BrokenFileError:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    where = f"{path}, line {line}, column {column}"
    return BrokenFileError(what, where, fix, schema.BROKEN_FILE, line)


def _no_rows(path: Path, text: str, at: int, keys: Sequence[str] = ()) -> BrokenFileError:
    if at == len(text):
        return _syntax_error(path, text, at, "the file is empty")
    value, end = _element(path, text, at)
    after = _skip_space(text, end)
    if after < len(text):
        return _syntax_error(path, text, after, "Extra data")
    fix = "write the rows as one array, or one row per line to a .jsonl file"
    if keys:
        what = f"a .json pool file holds rows under several keys: {', '.join(keys)}"
        fix = f"take those you mean: jq -c '.{keys[0]}[]' FILE > rows.jsonl"
    elif type(value) is dict:
        what = "a .json pool file is one object, and rows are under no key that is known"
        fix = f"{fix} (pandas: to_json(FILE, orient='records', lines=True); jq -c '.KEY[]')"
    else:
        what = f"a .json pool file must be one array of objects, and this one is {json_type(value)}"
    return _broken(what, path, text, at, fix)
