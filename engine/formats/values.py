"""Values out of JSON and Parquet: which count as none at all, and how they are written down."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from engine import schema

Row = Mapping[str, object]

MAX_REFERENCE: Final = 1024
"""Characters of JSON up to which an image, a list of tools and the like stand in a turn as they
are; of a larger one the digest does, as `raw` has the rest."""

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,39}"
_PLAIN_NAME: Final = re.compile(rf"{_NAME}(\[\]\.{_NAME}){{0,2}}", re.ASCII)
_EMPTY_WORDS: Final = frozenset({"", "null", "none", "nan"})
_MAX_EMPTY_JSON: Final = 256
"""Characters of JSON in a text up to which it may hold nothing."""
_JSON_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class RowError(ValueError):
    """The row never became a conversation; `detail` names keys and places, never the row's text."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def is_empty(value: object) -> bool:
    """Whether it counts as no value: null, NaN, ``""``, ``[]``, ``{}``, or nothing but those.

    Sets merged into one schema give every row the keys of all; what a row does not have is null in
    one of them, an empty text or list in another, an object of nulls in a third.
    """
    if isinstance(value, str):
        return not value
    if value is None:
        return True
    if not isinstance(value, list | dict | tuple):
        return value != value or value == b""  # NaN is null in JSON
    waiting: list[object] = [value]  # not by recursion: a row may be nested as deep as parsers go
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += cast("dict[str, object]", item).values()
        elif isinstance(item, list | tuple):
            waiting += cast("Sequence[object]", item)
        elif not is_empty(item):
            return False
    return True


def is_absent_json(value: object) -> bool:
    """Whether a value that some sets hold as JSON in a text (tools, calls) counts as none."""
    if not isinstance(value, str):
        return not value or is_empty(value)
    text = value.strip()
    if text.lower() in _EMPTY_WORDS:
        return True
    if len(text) > _MAX_EMPTY_JSON or text[0] not in "[{":
        return False
    try:
        return is_empty(json.loads(text))
    except (ValueError, RecursionError):
        return False


def text_of(row: Row, key: str) -> str:
    """The text under a key.

    Raises:
        RowError: there is none, or it is no text.
    """
    value = row.get(key)
    if isinstance(value, str):
        return value
    if key not in row:
        raise RowError(schema.MISSING_FIELD, f"no {key}")
    raise RowError(schema.WRONG_TYPE, f"{key}: {json_type(value)}, expected text")


def canonical_value(value: object, where: str) -> str:
    """Canonical JSON of a value that stands in for a text.

    Raises:
        RowError: it is nested too deeply.
    """
    try:
        return json_text(value, sort_keys=True)
    except RecursionError:
        raise RowError(schema.WRONG_TYPE, f"{where}: nested too deeply") from None


def reference(value: object, where: str) -> str:
    """What a turn holds of a value that is never rendered: its JSON, of a large one the digest."""
    text = canonical_value(value, where)
    if len(text) <= MAX_REFERENCE:
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def is_plain_name(name: str) -> bool:
    """Whether a key is a name that may be shown: a pool may well hold text in its keys.

    Names of keys inside turns are written ``messages[].name``.
    """
    return _PLAIN_NAME.fullmatch(name) is not None


def shown_names(row: Row) -> str:
    """The row's keys, as far as they are names."""
    plain = [key for key in row if is_plain_name(key)]
    shown = ", ".join(plain[:8]) or "none"
    hidden = len(row) - len(plain[:8])
    return f"{shown} and {hidden} more" if hidden else shown


def json_type(value: object) -> str:
    """What JSON calls the type of a value, for error messages."""
    return _JSON_TYPES.get(type(value), type(value).__name__)


def json_text(value: object, *, sort_keys: bool = False) -> str:
    """Compact JSON of any value out of JSON or Parquet, text as it is and not escaped.

    NaN and the infinities become null. Bytes become base64, dates and times their ISO form,
    anything else JSON has no word for (decimals, durations) its ``str``.
    """
    encode = _encode_sorted if sort_keys else _encode
    try:
        return encode(value)
    except ValueError:  # a float that JSON has no word for; rare, so only then the second walk
        return encode(_finite(value))


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat is not None else str(value)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast(dict[str, object], value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast(Sequence[object], value)]
    return value


# Built once: json.dumps builds an encoder per call when it is given options.
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode
_encode_sorted: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain, sort_keys=True
).encode
