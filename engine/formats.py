"""One row of a pool, in whatever format, to one conversation. Pure: no files, no Ray.

Formats are told apart by their keys. What is mapped, what is flagged and what is rejected is said
once, in ``docs/formats.md``, whose every line is a test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from engine import schema
from engine.schema import ASSISTANT, INPUT, SYSTEM, USER

if TYPE_CHECKING:
    from engine.config import FieldMap

Row = Mapping[str, object]


class Turn(NamedTuple):
    """One turn: a role of ours (a tool's turn keeps its own role name) and its text."""

    role: str
    content: str
    thinking: str = ""
    """What an assistant reasoned before it, where the pool keeps that apart."""
    scored: bool = True
    """False for an assistant turn that the pool masks: it is context."""


class RowError(ValueError):
    """The row never became a conversation; `detail` names keys and places, never the row's text."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


# The first of these keys that is not null holds a list of turns. They go before the flat formats:
# chat sets often carry their first prompt again in a flat key (UltraChat's `prompt`).
_CHAT: Final = ("messages", "conversations")

# Prompt key, response key, keys of the second field: its own name, then the other format's, as
# rows with instruction, input and response exist and must not lose their input.
_FLAT: Final = (
    ("instruction", "output", ("input", "context")),
    ("instruction", "response", ("context", "input")),
    ("prompt", "response", ()),
    ("prompt", "completion", ()),
)

# Half a flat format: the key a row has, and what it lacks.
_COUNTERPARTS: Final = (
    ("instruction", "output or response"),
    ("prompt", "response or completion"),
    ("output", "instruction"),
    ("response", "instruction or prompt"),
    ("completion", "prompt"),
)

_SYSTEM_KEYS: Final = ("system", "system_prompt")

_ROLES: Final = {
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("user", "human", "prompter"), USER),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), ASSISTANT),
}
_TOOL_ROLES: Final = frozenset({"observation", "ipython"})
_TOOL_PREFIXES: Final = ("tool", "function")
_CALL_KEYS: Final = ("tool_calls", "function_call")
_TEXT_PARTS: Final = ("text", "input_text", "output_text")

_OUR_ROLES: Final = frozenset({SYSTEM, USER, INPUT, ASSISTANT})
# INPUT belongs to the USER turn before it.
_ALTERNATING: Final = frozenset(
    {(SYSTEM, USER), (USER, INPUT), (USER, ASSISTANT), (INPUT, ASSISTANT), (ASSISTANT, USER)}
)

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}", re.ASCII)
_JSON_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def to_conversation(row: Row, fields: FieldMap | None = None) -> tuple[tuple[Turn, ...], str]:
    """The row's turns, and ``ok`` or the flag that keeps it from being scored.

    Args:
        row: the row as parsed from JSON or Parquet.
        fields: the names of the row's keys; without it the format is found from them.

    Raises:
        RowError: the row is no conversation.
    """
    has_other_parts = False
    if fields is not None:
        turns = _system_turn(row, (fields.system,) if fields.system is not None else ())
        if fields.turns is not None:
            names = (fields.role,), (fields.content,)
            has_other_parts = _add_chat(turns, row, fields.turns, *names, fields.roles)
        else:
            second = (fields.input,) if fields.input is not None else ()
            _add_flat(turns, row, cast(str, fields.prompt), cast(str, fields.response), second)
    else:
        turns = _system_turn(row, _SYSTEM_KEYS)
        chat = next((key for key in _CHAT if row.get(key) is not None), None)
        if chat is not None:
            names = ("role", "from"), ("content", "value")
            has_other_parts = _add_chat(turns, row, chat, *names, {})
        else:
            _add_flat(turns, row, *_flat_format(row))
    _refuse_surrogates(turns)
    return tuple(turns), _flag(turns, has_other_parts)


def canonical(turns: Sequence[Turn]) -> bytes:
    """What a row's id is taken over: ``[[role, content], …]`` as compact JSON in UTF-8.

    A turn with thoughts kept apart, or a masked one, has an object with those as a third entry.
    """
    return _encode_turns([_canonical_turn(turn) for turn in turns]).encode()


def _canonical_turn(turn: Turn) -> tuple[object, ...]:
    more: dict[str, object] = {}
    if not turn.scored:
        more["scored"] = False
    if turn.thinking:
        more["thinking"] = turn.thinking
    return (turn.role, turn.content, more) if more else (turn.role, turn.content)


def row_id(turns: Sequence[Turn]) -> str:
    """First 32 hex digits of SHA-256 over the canonical JSON of the turns (`canonical`)."""
    return hashlib.sha256(canonical(turns)).hexdigest()[:32]


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


def json_type(value: object) -> str:
    """What JSON calls the type of a value, for error messages."""
    return _JSON_TYPES.get(type(value), type(value).__name__)


# ── flat rows ────────────────────────────────────────────────────────────────────────────────────


def _flat_format(row: Row) -> tuple[str, str, tuple[str, ...]]:
    """The flat format whose keys the row has; one without nulls is preferred.

    Sets merged into one Parquet schema give every row the keys of all, most of them null.
    """
    present = [known for known in _FLAT if known[0] in row and known[1] in row]
    for known in present:
        if row[known[0]] is not None and row[known[1]] is not None:
            return known
    if present:
        return present[0]
    chat = next((key for key in _CHAT if key in row), None)
    if chat is not None:
        raise RowError(schema.WRONG_TYPE, f"{chat}: null, expected a list of turns")
    for key, absent in _COUNTERPARTS:
        if key in row:
            raise RowError(schema.MISSING_FIELD, f"{key}, but no {absent}")
    raise RowError(schema.UNKNOWN_FORMAT, f"keys: {_names(row)}")


def _add_flat(
    turns: list[Turn], row: Row, prompt: str, response: str, second: tuple[str, ...]
) -> None:
    turns.append(Turn(USER, _text(row, prompt)))
    key = next((key for key in second if row.get(key) is not None), None)
    if key is not None and (text := _text(row, key)):
        turns.append(Turn(INPUT, text))
    turns.append(Turn(ASSISTANT, _text(row, response)))


def _system_turn(row: Row, keys: tuple[str, ...]) -> list[Turn]:
    for key in keys:
        if text := _optional_text(row, key):
            return [Turn(SYSTEM, text)]
    return []


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if isinstance(value, str):
        return value
    if key not in row:
        raise RowError(schema.MISSING_FIELD, f"no {key}")
    raise RowError(schema.WRONG_TYPE, f"{key}: {json_type(value)}, expected text")


def _optional_text(row: Row, key: str) -> str:
    return _text(row, key) if row.get(key) is not None else ""


# ── chat rows ────────────────────────────────────────────────────────────────────────────────────


def _add_chat(
    turns: list[Turn],
    row: Row,
    key: str,
    role_keys: tuple[str, ...],
    text_keys: tuple[str, ...],
    roles: Mapping[str, str],
) -> bool:
    """Append the turns of the list under `key`; true if one has a content part that is no text."""
    if key not in row:
        raise RowError(schema.MISSING_FIELD, f"no {key}")
    items = row[key]
    if not isinstance(items, list):
        raise RowError(schema.WRONG_TYPE, f"{key}: {json_type(items)}, expected a list of turns")
    if not items:
        raise RowError(schema.NO_TURNS, f"{key} is empty")
    has_other_parts = False
    for position, item in enumerate(cast(list[object], items)):
        where = f"{key}[{position}]"
        if not isinstance(item, dict):
            raise RowError(schema.WRONG_TYPE, f"{where}: {json_type(item)}, expected an object")
        turn = cast(dict[str, object], item)
        role = _role(turn, role_keys, roles, where)
        calls = [name for name in _CALL_KEYS if turn.get(name)]
        text_key = _first_key(turn, text_keys)
        text = turn.get(text_key)
        if text is None and calls:  # a turn that only calls a tool has null content, or none
            text = ""
        elif not isinstance(text, str):
            text, is_text = _other(turn, text_key, role, where)
            has_other_parts = has_other_parts or not is_text
        turns.append(Turn(role, text))
        # A turn of its own, so that the id covers the call.
        turns.extend(Turn(name, _canonical_value(turn[name], where)) for name in calls)
    return has_other_parts


def _first_key(turn: Row, keys: tuple[str, ...]) -> str:
    """The first of the keys that is not null, else the first there, else the first of all."""
    for key in keys:
        if turn.get(key) is not None:
            return key
    return next((key for key in keys if key in turn), keys[0])


def _role(turn: Row, keys: tuple[str, ...], roles: Mapping[str, str], where: str) -> str:
    """Our name for the turn's role; a tool's role keeps its name as written."""
    key = _first_key(turn, keys)
    written = turn.get(key)
    if not isinstance(written, str):
        if key not in turn:
            raise RowError(schema.MISSING_FIELD, f"{where}: no {' or '.join(keys)}")
        raise RowError(schema.WRONG_TYPE, f"{where}.{key}: {json_type(written)}, expected text")
    name = roles.get(written, written)
    if name == INPUT and written in roles:
        return INPUT
    lower = name.lower()
    known = _ROLES.get(lower)
    if known is not None:
        return known
    if lower in _TOOL_ROLES or lower.startswith(_TOOL_PREFIXES):
        return name
    shown = name if _PLAIN_NAME.fullmatch(name) else "a name not shown"
    raise RowError(schema.UNKNOWN_ROLE, f"{where}.{key}: {shown}")


def _other(turn: Row, key: str, role: str, where: str) -> tuple[str, bool]:
    """Text of content that is no string, and whether it is text indeed."""
    if key not in turn:
        raise RowError(schema.MISSING_FIELD, f"{where}: no {key}")
    value = turn[key]
    if isinstance(value, list):
        parts = cast(list[object], value)
        texts = [text for part in parts if (text := _part(part)) is not None]
        if len(texts) == len(parts):
            return "".join(texts), True
        return _canonical_value(parts, where), False
    if role not in _OUR_ROLES:  # what a tool was given or gave back, in any shape
        return _canonical_value(value, where), True
    raise RowError(schema.WRONG_TYPE, f"{where}.{key}: {json_type(value)}, expected text")


def _part(part: object) -> str | None:
    """The text of one part of list-valued content; None for an image and the like."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        fields = cast(dict[str, object], part)
        text = fields.get("text")
        if isinstance(text, str) and fields.get("type", "text") in _TEXT_PARTS:
            return text
    return None


def _canonical_value(value: object, where: str) -> str:
    try:
        return json_text(value, sort_keys=True)
    except RecursionError:
        raise RowError(schema.WRONG_TYPE, f"{where}: nested too deeply") from None


# ── checks on the whole conversation ─────────────────────────────────────────────────────────────


def _flag(turns: list[Turn], has_other_parts: bool) -> str:
    """The first flag that holds, in the order of docs/formats.md, else ok."""
    roles = [turn.role for turn in turns]
    if not _OUR_ROLES.issuperset(roles):
        return schema.TOOL_TURN
    if has_other_parts:
        return schema.NON_TEXT_CONTENT
    if ASSISTANT not in roles:
        return schema.NO_RESPONSE
    if USER not in roles or roles.index(ASSISTANT) < roles.index(USER):
        return schema.ASSISTANT_FIRST
    if not _ALTERNATING.issuperset(pairwise(roles)):
        return schema.ROLES_NOT_ALTERNATING
    first = roles.index(USER)
    if _is_blank(turns[first].content):
        after = turns[first + 1]  # there is one: an assistant turn comes later
        if after.role != INPUT or _is_blank(after.content):
            return schema.EMPTY_PROMPT
    if any(turn.role == ASSISTANT and _is_blank(turn.content) for turn in turns):
        return schema.EMPTY_RESPONSE
    return schema.OK


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _refuse_surrogates(turns: list[Turn]) -> None:
    for position, turn in enumerate(turns):
        for text in (turn.role, turn.content, turn.thinking):
            if not text.isascii():  # free, and most text is
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    detail = f"turn {position}, character {error.start}"
                    raise RowError(schema.LONE_SURROGATE, detail) from None


def _names(row: Row) -> str:
    """The row's keys, as far as they are names: a pool may well hold text in its keys."""
    plain = [key for key in row if _PLAIN_NAME.fullmatch(key)]
    shown = ", ".join(plain[:8]) or "none"
    hidden = len(row) - len(plain[:8])
    return f"{shown} and {hidden} more" if hidden else shown


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


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
_encode_turns: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode
_encode_sorted: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain, sort_keys=True
).encode
