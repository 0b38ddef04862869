"""Lists of turns: messages as chats hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple, cast

from engine import schema
from engine.formats.media import is_media
from engine.formats.turns import OUR_ROLES, Draft, Turn
from engine.formats.values import (
    Row,
    RowError,
    canonical_value,
    is_absent_json,
    is_empty,
    is_plain_name,
    json_type,
    reference,
)
from engine.schema import ASSISTANT, INPUT, SYSTEM, USER

_ROLES: Final = {
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("user", "human", "prompter"), USER),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), ASSISTANT),
}
_TOOL_ROLES: Final = frozenset({"observation", "ipython"})
_TOOL_PREFIXES: Final = ("tool", "function")
_CALL_KEYS: Final = ("tool_calls", "function_call")
_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_TEXT_TYPES: Final = (None, *_TEXT_PARTS)
_NO_SYSTEM: Final = Turn(SYSTEM, "")
_PART_KEYS: Final = frozenset({"type", "text"})
_MASK_WORDS: Final = {
    **dict.fromkeys(("0", "0.0", "false", "no"), 0),
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1),
}


class TurnKeys(NamedTuple):
    """Names of the keys inside a turn; of several the first that holds something."""

    role: tuple[str, ...] = ("role", "from")
    content: tuple[str, ...] = ("content", "value")
    thinking: tuple[str, ...] = ("reasoning_content", "thinking", "reasoning")
    """What the assistant reasoned before its content."""
    masks: tuple[str, ...] = ("weight", "loss", "train", "trainable", "loss_mask")
    """0 or false under any of them makes context of an assistant turn."""
    roles: Mapping[str, str] = {}
    """The pool's role names to ours."""


def add_turns(draft: Draft, key: str, items: object, keys: TurnKeys) -> None:
    """Append the turns of the list that was found under `key`.

    Raises:
        RowError: it is no list of turns.
    """
    if not isinstance(items, list):
        raise RowError(schema.WRONG_TYPE, f"{key}: {json_type(items)}, expected a list of turns")
    if not items:
        raise RowError(schema.NO_TURNS, f"{key} is empty")
    for position, item in enumerate(cast(list[object], items)):
        where = f"{key}[{position}]"
        if not isinstance(item, dict):
            raise RowError(schema.WRONG_TYPE, f"{where}: {json_type(item)}, expected an object")
        _add_turn(draft, cast(dict[str, object], item), keys, key, where)
        if not position and draft.turns and draft.turns[-1] == _NO_SYSTEM:
            draft.turns.pop()  # nothing was said, as where there is no such turn


def is_turn(value: object, keys: TurnKeys) -> bool:
    """Whether it is an object that has a role and a text."""
    if not isinstance(value, dict):
        return False
    return any(key in value for key in keys.role) and any(
        key in value for key in (*keys.content, "tool_calls")
    )


def _add_turn(draft: Draft, turn: dict[str, object], keys: TurnKeys, key: str, where: str) -> None:
    role_key = _first_key(turn, keys.role)
    role = _role(turn, role_key, keys, where)
    text_key = _first_key(turn, keys.content)
    text = turn.get(text_key)
    if isinstance(text, str) and len(turn) == 2:  # most turns: nothing else is in them
        draft.turns.append(Turn(role, text))
        return
    used = {role_key, text_key}
    calls = [name for name in _CALL_KEYS if not is_absent_json(turn.get(name))]
    used.update(name for name in _CALL_KEYS if name in turn and name not in calls)
    thinking = add_thinking(draft, turn, keys.thinking, used, where) if role == ASSISTANT else ""
    # A turn that only calls a tool has null content, or none; so may one that only thought.
    if text is None and (calls or thinking or (role == SYSTEM and where.endswith("[0]"))):
        text = ""
    elif not isinstance(text, str):
        text = _other(draft, turn, text_key, role, f"{key}[].{text_key}", where)
    scored = _scored(turn, role, keys.masks, used, where)
    draft.turns.append(Turn(role, text, thinking, scored))
    # Turns of their own, so that the id covers the call, the picture.
    draft.turns.extend(Turn(name, canonical_value(turn[name], where)) for name in calls)
    used.update(calls)
    used.update(add_media(draft, turn, where))
    for name, value in turn.items():
        if name not in used and not is_empty(value):
            draft.unused.append(f"{key}[].{name}")


def add_media(draft: Draft, holder: Row, where: str = "", used: Sequence[str] = ()) -> list[str]:
    """Append what is no text under the keys of a row or a turn; which keys those are.

    Args:
        draft: to append to.
        holder: the row or the turn.
        where: it stands, for errors.
        used: keys that play another part.
    """
    found = [name for name in holder if is_media(name, holder[name]) and name not in used]
    for name in found:
        draft.turns.append(Turn(name, reference(holder[name], where or name)))
        draft.has_other_parts = True
    return found


def _first_key(turn: Row, keys: tuple[str, ...]) -> str:
    """The first of the keys that holds something, else the first that is not null, else the first
    that is there, else the first of all.
    """
    first = keys[0]
    if turn.get(first):  # the usual one, without a look at the others
        return first
    for test in (lambda v: not is_empty(v), lambda v: v is not None):
        for key in keys:
            if test(turn.get(key)):
                return key
    return next((key for key in keys if key in turn), first)


def _role(turn: Row, key: str, keys: TurnKeys, where: str) -> str:
    """Our name for the turn's role; a tool's role keeps its name as written."""
    written = turn.get(key)
    if not isinstance(written, str):
        if key not in turn:
            raise RowError(schema.MISSING_FIELD, f"{where}: no {' or '.join(keys.role)}")
        raise RowError(schema.WRONG_TYPE, f"{where}.{key}: {json_type(written)}, expected text")
    name = keys.roles.get(written, written)
    if name == INPUT and written in keys.roles:
        return INPUT
    lower = name.lower()
    known = _ROLES.get(lower)
    if known is not None:
        return known
    if lower in _TOOL_ROLES or lower.startswith(_TOOL_PREFIXES):
        return name
    shown = name if is_plain_name(name) else "a name not shown"
    raise RowError(schema.UNKNOWN_ROLE, f"{where}.{key}: {shown}")


# ── content that is no text ──────────────────────────────────────────────────────────────────────


def _other(draft: Draft, turn: Row, key: str, role: str, name: str, where: str) -> str:
    """Text of content that is no string; notes in the draft whether it is text indeed."""
    if key not in turn:
        raise RowError(schema.MISSING_FIELD, f"{where}: no {key}")
    value = turn[key]
    if isinstance(value, list):
        filled = [part for part in cast(list[object], value) if not _is_blank_part(part)]
        texts = [text for part in filled if (text := _part(part)) is not None]
        if len(texts) == len(filled):
            draft.unused += [f"{name}[].{other}" for part in filled for other in _others(part)]
            return "".join(texts)
        draft.has_other_parts = True
        return canonical_value(cast(object, value), where)
    if role not in OUR_ROLES:  # what a tool was given or gave back, in any shape
        return canonical_value(value, where)
    raise RowError(schema.WRONG_TYPE, f"{where}.{key}: {json_type(value)}, expected text")


def _part(part: object) -> str | None:
    """The text of one part of list-valued content; None for an image and the like.

    A list in Parquet gives every part the keys of all: an image's are null beside a text.
    """
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        fields = cast(dict[str, object], part)
        text = fields.get("text")
        kind = fields.get("type")
        if isinstance(text, str) and (kind in _TEXT_TYPES):
            return None if any(is_media(name, fields[name]) for name in fields) else text
    return None


def _is_blank_part(part: object) -> bool:
    """Whether a part holds nothing: null, ``{}``, a part of text without one."""
    if isinstance(part, dict):
        fields = cast(dict[str, object], part)
        if fields.get("type") in _TEXT_TYPES:
            return all(is_empty(fields[name]) for name in fields if name != "type")
    return not isinstance(part, list | tuple) and is_empty(part)


def _others(part: object) -> list[str]:
    """Keys of a part of text that play no part, such as a mark for a cache."""
    if not isinstance(part, dict) or len(cast(dict[str, object], part)) < 2:
        return []
    fields = cast(dict[str, object], part)
    return [name for name in fields if name not in _PART_KEYS and not is_empty(fields[name])]


# ── thoughts and masks ───────────────────────────────────────────────────────────────────────────


def add_thinking(
    draft: Draft, holder: Row, keys: tuple[str, ...], used: set[str], where: str
) -> str:
    """What was reasoned, under the first of the keys of a row or a turn that holds it.

    Of what is no text but a list or an object the JSON, and the draft notes that it is none.
    ``thinking: true`` is no thought.
    """
    for key in keys:
        value = holder.get(key)
        if isinstance(value, str | list | dict) and not is_empty(value):
            used.update(other for other in keys if holder.get(other) == value)
            if isinstance(value, str):
                return value
            draft.has_other_parts = True
            return canonical_value(cast(object, value), f"{where}.{key}" if where else key)
    return ""


def _scored(turn: Row, role: str, keys: tuple[str, ...], used: set[str], where: str) -> bool:
    """False for an assistant turn that one of the keys masks.

    Only 0 masks, and a turn is scored in full or not at all: a weight between counts as 1 and its
    key as one that plays no part. So does the wish to train on a user's turn.
    """
    scored = True
    for key in keys:
        value = turn.get(key)
        if is_empty(value):
            continue
        weight = _weight(value)
        if role != ASSISTANT:
            if weight == 0:
                used.add(key)
            continue
        if weight is None:
            detail = f"{where}.{key}: {json_type(value)}, expected 0 or 1"
            raise RowError(schema.WRONG_TYPE, detail)
        scored = scored and weight != 0
        if weight in (0, 1):
            used.add(key)
    return scored


def _weight(value: object) -> float | None:
    """The number that a mask stands for, however it is written; None if it stands for none."""
    if isinstance(value, int | float | Decimal):
        return float(value) if abs(value) < 1e9 else 1e9  # integers may have any length
    return _MASK_WORDS.get(value.strip().lower()) if isinstance(value, str) else None
