"""What a row becomes: turns, their id, and the flag that keeps them from being scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from engine import schema
from engine.formats.media import has_mark, is_media_name
from engine.formats.values import RowError
from engine.schema import ASSISTANT, INPUT, SYSTEM, USER

OUR_ROLES: Final = frozenset({SYSTEM, USER, INPUT, ASSISTANT})
_PROMPTS: Final = frozenset({USER, INPUT})

# INPUT belongs to the USER turn before it.
_ALTERNATING: Final = frozenset(
    {(SYSTEM, USER), (USER, INPUT), (USER, ASSISTANT), (INPUT, ASSISTANT), (ASSISTANT, USER)}
)


class Turn(NamedTuple):
    """One turn: a role of ours (a tool's turn keeps its own role name) and its text."""

    role: str
    content: str
    thinking: str = ""
    """What an assistant reasoned before it, where the pool keeps that apart."""
    scored: bool = True
    """False for an assistant turn that the pool masks: it is context."""


class Draft:
    """A conversation in the making.

    Attributes:
        turns: so far.
        has_system: the first is the text under a key of the row.
        has_other_parts: something in it is no text.
        used: keys of the row that play a part.
        unused: keys that play none, as far as they are known while reading; may repeat.
    """

    __slots__ = ("has_other_parts", "has_system", "turns", "unused", "used")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.has_system = False
        self.has_other_parts = False
        self.used: list[str] = []
        self.unused: list[str] = []

    def mask(self, start: int, stop: int) -> None:
        """Make context of the assistant's turns ``[start, stop)``."""
        for place in range(start, stop):
            if self.turns[place].role == ASSISTANT:
                self.turns[place] = self.turns[place]._replace(scored=False)


def canonical(turns: Sequence[Turn]) -> bytes:
    """What a row's id is taken over: ``[[role, content], …]`` as compact JSON in UTF-8.

    A turn with thoughts kept apart, or a masked one, has an object with those as a third entry.
    """
    return _encode([_canonical_turn(turn) for turn in turns]).encode()


def row_id(turns: Sequence[Turn]) -> str:
    """First 32 hex digits of SHA-256 over the canonical JSON of the turns (`canonical`)."""
    return hashlib.sha256(canonical(turns)).hexdigest()[:32]


def flag_of(draft: Draft) -> str:
    """The first flag that holds, in the order of docs/formats.md, else ok."""
    turns = draft.turns
    roles = [turn.role for turn in turns]
    if not OUR_ROLES.issuperset(roles) and not all(map(_is_no_tool, roles)):
        return schema.TOOL_TURN
    if draft.has_other_parts or any(has_mark(t.content) for t in turns if t.role in _PROMPTS):
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
    is_scored = has_blank = False
    for turn in turns:
        if turn.role == ASSISTANT:
            is_scored = is_scored or turn.scored
            has_blank = has_blank or _is_blank(turn.content)
    if not is_scored:
        return schema.ALL_MASKED
    return schema.EMPTY_RESPONSE if has_blank else schema.OK


def refuse_surrogates(turns: Sequence[Turn]) -> None:
    """Refuse text that no column can hold.

    Raises:
        RowError: names the turn and the character.
    """
    for position, turn in enumerate(turns):
        for text in turn[:3]:  # role, content, thinking
            if not text.isascii():  # free, and most text is
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    detail = f"turn {position}, character {error.start}"
                    raise RowError(schema.LONE_SURROGATE, detail) from None


def _canonical_turn(turn: Turn) -> tuple[object, ...]:
    more: dict[str, object] = {}
    if not turn.scored:
        more["scored"] = False
    if turn.thinking:
        more["thinking"] = turn.thinking
    return (turn.role, turn.content, more) if more else (turn.role, turn.content)


def _is_no_tool(role: str) -> bool:
    """A picture stands in a turn that has its key as role: the row's id covers it."""
    return role in OUR_ROLES or is_media_name(role)


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


# Built once: json.dumps builds an encoder per call when it is given options.
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
