"""What stands beside a chat under keys of the row: its answer, context, earlier rounds, thoughts.

Sets that were made chats of often keep their first keys. So what the chat says already, or what
belongs to another prompt, is left to be listed.
"""

from __future__ import annotations

from itertools import dropwhile
from typing import Final, cast

from engine.formats.answers import (
    CHOSEN,
    add_lists,
    insert_history,
    insert_input,
    think,
    turns_under,
)
from engine.formats.chat import TurnKeys
from engine.formats.flat import PROMPTS, RESPONSES, Flat, drop_repeated_system, first_filled
from engine.formats.media import is_media_name
from engine.formats.turns import Draft
from engine.formats.values import Row, is_empty
from engine.schema import INPUT, SYSTEM, USER

_NAMES: Final = Flat("", "", ("context", "input"))
_ANSWERS: Final = (CHOSEN, *(name for name in RESPONSES if name != CHOSEN))


def add_beside(draft: Draft, row: Row, key: str, keys: TurnKeys) -> None:
    """Add to the turns that were found under `key` what the row's other keys say.

    A chat that ends in a prompt is answered by `chosen` or what a response goes under in flat
    rows; its own answers are context then.

    Raises:
        RowError: such an answer is a list that is none of turns.
    """
    if len(row) == 1:
        return
    start = 1 if draft.has_system and draft.turns[1:] else 0
    if _is_of_another_prompt(draft, row):
        return
    if response := _answer(draft, row, keys):
        used = draft.used.copy()
        del draft.turns[start:]
        draft.used = [*used, response]
        add_lists(draft, row, (key, response), None, (), (), keys)
        drop_repeated_system(draft)
    second = first_filled(row, _NAMES.second)
    if second is not None and isinstance(row[second], str):
        text = cast(str, row[second])
        if not _is_said(draft, text):
            after = draft.turns[start:]
            insert_input(after, text)
            draft.turns[start:] = after
            draft.used.append(second)
    _add_rounds(draft, row, start, keys)
    thoughts = first_filled(row, _NAMES.thinking)
    text = row[thoughts] if thoughts is not None else None
    if thoughts is not None and isinstance(text, str) and not _is_said(draft, text):
        think(draft, row, start, (thoughts,))


def _is_of_another_prompt(draft: Draft, row: Row) -> bool:
    """Whether the row has a prompt that is none of the chat's: the other keys belong to it."""
    prompts = [row[name] for name in PROMPTS if not is_empty(row.get(name))]
    said = {turn.content for turn in draft.turns if turn.role == USER}
    return any(not isinstance(prompt, str) or prompt not in said for prompt in prompts)


def _answer(draft: Draft, row: Row, keys: TurnKeys) -> str | None:
    """The key of the answer to a chat that ends in a prompt."""
    own = dropwhile(lambda turn: is_media_name(turn.role), reversed(draft.turns))
    last = next(own, None)
    if last is None or last.role not in (USER, INPUT):
        return None
    names = (name for name in _ANSWERS if not is_empty(row.get(name)))
    return next(
        (name for name in names if isinstance(row[name], str) or turns_under(row, name, keys)), None
    )


def _add_rounds(draft: Draft, row: Row, start: int, keys: TurnKeys) -> None:
    (name,) = _NAMES.history
    if not isinstance(row.get(name), list):
        return
    before = Draft()
    insert_history(before, row, 0, (name,), keys)
    if all(_is_said(draft, turn.content) for turn in before.turns):
        return
    draft.used += before.used
    draft.unused += before.unused
    draft.has_other_parts |= before.has_other_parts
    place = start + (draft.turns[start : start + 1] != [] and draft.turns[start].role == SYSTEM)
    draft.turns[place:place] = before.turns


def _is_said(draft: Draft, text: str) -> bool:
    """Whether a turn holds the text already."""
    return any(text.strip() in turn.content for turn in draft.turns)
