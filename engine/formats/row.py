"""Which format a row has, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from engine import schema
from engine.formats.answers import CHOSEN, add_chosen, is_conversation
from engine.formats.beside import add_beside
from engine.formats.chat import TurnKeys, add_media, add_turns, is_turn
from engine.formats.flat import (
    Flat,
    add_flat,
    add_system,
    drop_repeated_system,
    filled_format,
    present_format,
    refuse_half,
)
from engine.formats.turns import Draft, Turn, flag_of, refuse_surrogates
from engine.formats.values import (
    Row,
    RowError,
    is_absent_json,
    is_empty,
    reference,
    shown_names,
)

if TYPE_CHECKING:
    from engine.config import FieldMap

# The first of these keys that holds something holds a list of turns. They go before the flat
# formats: chat sets often carry their first prompt again in a flat key (UltraChat's `prompt`).
_CHAT: Final = ("messages", "conversations")
# These names mean other things too: they go last, and only where their list looks like turns.
_CHAT_IF_TURNS: Final = ("conversation", "dialogue", "dialog", "turns", "chat")
_SYSTEM_KEYS: Final = ("system", "system_prompt")
_TOOLS: Final = ("tools", "functions")
_TURN_KEYS: Final = TurnKeys()


class Converted(NamedTuple):
    """What became of a row."""

    turns: tuple[Turn, ...]
    flag: str
    """``ok``, or what keeps it from being scored."""
    unused: tuple[str, ...]
    """Keys that hold something and play no part, as the row names them; inside turns
    ``messages[].name``."""


def to_conversation(row: Row, fields: FieldMap | None = None) -> tuple[tuple[Turn, ...], str]:
    """The row's turns, and ``ok`` or the flag that keeps it from being scored; see `convert`."""
    converted = convert(row, fields)
    return converted.turns, converted.flag


def convert(row: Row, fields: FieldMap | None = None) -> Converted:
    """Make a conversation of a row.

    Args:
        row: as parsed from JSON or Parquet.
        fields: the names of the row's keys; without it the format is found from them.

    Raises:
        RowError: the row is no conversation.
    """
    draft = Draft()
    if fields is not None:
        _add_named(draft, row, fields)
    else:
        add_system(draft, row, _SYSTEM_KEYS)
        _add_found(draft, row)
    _add_tools(draft, row)
    draft.used += add_media(draft, row, used=draft.used)
    refuse_surrogates(draft.turns)
    used, unused = draft.used, draft.unused
    for key, value in row.items():
        if key not in used and not is_empty(value):
            unused.append(key)
    names = tuple(dict.fromkeys(unused)) if unused else ()
    return Converted(tuple(draft.turns), flag_of(draft), names)


def looks_like_turns(value: object) -> bool:
    """Whether it is a list of objects that have a role and a text."""
    return is_conversation(value) and is_turn(cast(list[object], value)[0], _TURN_KEYS)


def _add_found(draft: Draft, row: Row) -> None:
    for key in _CHAT:
        if key in row and not is_empty(row[key]):
            _add_whole_chat(draft, row, key)
            return
    flat = filled_format(row)
    if flat is not None:
        add_flat(draft, row, flat, _TURN_KEYS)
        drop_repeated_system(draft)
        return
    if is_conversation(row.get(CHOSEN)):
        add_chosen(draft, row, _TURN_KEYS)
        drop_repeated_system(draft)
        return
    for key in _CHAT_IF_TURNS:
        if key in row and looks_like_turns(row[key]):
            _add_whole_chat(draft, row, key)
            return
    # Nothing holds what it should: what is there says what is wrong.
    flat = present_format(row)
    if flat is not None:
        add_flat(draft, row, flat, _TURN_KEYS)
        return
    chat = next((key for key in _CHAT if key in row), None)
    if chat is not None:
        if row[chat] is None:
            raise RowError(schema.WRONG_TYPE, f"{chat}: null, expected a list of turns")
        _add_chat(draft, row, chat, _TURN_KEYS)
        return
    refuse_half(row)
    raise RowError(schema.UNKNOWN_FORMAT, f"keys: {shown_names(row)}")


def _add_whole_chat(draft: Draft, row: Row, key: str) -> None:
    """A list of turns, and what the row says beside it."""
    _add_chat(draft, row, key, _TURN_KEYS)
    add_beside(draft, row, key, _TURN_KEYS)


def _add_chat(draft: Draft, row: Row, key: str, keys: TurnKeys) -> None:
    if key not in row:
        raise RowError(schema.MISSING_FIELD, f"no {key}")
    draft.used.append(key)
    add_turns(draft, key, row[key], keys)
    drop_repeated_system(draft)


def _add_tools(draft: Draft, row: Row) -> None:
    """Tools that the row offers: its response was written with them in sight."""
    for key in _TOOLS:
        if key in row and key not in draft.used:
            draft.used.append(key)
            if not is_absent_json(row[key]):
                draft.turns.append(Turn(key, reference(row[key], key)))


def _add_named(draft: Draft, row: Row, fields: FieldMap) -> None:
    """Of the keys for texts and turns only those that `fields` names are looked at; inside turns
    those of masks and the like.
    """
    add_system(draft, row, _one(fields.system))
    keys = _TURN_KEYS._replace(roles=fields.roles)
    if fields.role is not None:
        keys = keys._replace(role=(fields.role,))
    if fields.content is not None:
        keys = keys._replace(content=(fields.content,))
    if fields.weight is not None:
        keys = keys._replace(masks=(fields.weight,))
    if fields.turns is not None:
        if fields.thinking is not None:
            keys = keys._replace(thinking=(fields.thinking,))
        _add_chat(draft, row, fields.turns, keys)
        return
    prompt, response = cast(str, fields.prompt), cast(str, fields.response)
    known = (_one(fields.input), _one(fields.history), _one(fields.thinking))
    add_flat(draft, row, Flat(prompt, response, *known), keys)
    drop_repeated_system(draft)


def _one(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)
