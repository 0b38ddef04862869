"""A response that stands beside its prompt, where one or both of them are turns."""

from __future__ import annotations

from typing import Final, cast

from engine.formats.chat import TurnKeys, add_thinking, add_turns, is_turn
from engine.formats.history import add_history
from engine.formats.turns import Draft, Turn
from engine.formats.values import Row, text_of
from engine.schema import ASSISTANT, INPUT, SYSTEM, USER

CHOSEN: Final = "chosen"
"""The better of two responses: of a conversation it holds, only what follows the last prompt is
meant; `rejected` plays no part."""


def turns_under(row: Row, key: str, keys: TurnKeys) -> list[object] | None:
    """The list of turns under a key, of one turn that stands alone too; None if it holds none."""
    value = row.get(key)
    if is_conversation(value):
        return cast(list[object], value)
    return [cast(object, value)] if is_turn(value, keys) else None


def is_conversation(value: object) -> bool:
    """Whether it is a list of objects, as turns are."""
    if not isinstance(value, list) or not value:
        return False
    return isinstance(cast(list[object], value)[0], dict)


def add_lists(
    draft: Draft,
    row: Row,
    names: tuple[str, str],
    second: str | None,
    history: tuple[str, ...],
    thinking: tuple[str, ...],
    keys: TurnKeys,
) -> None:
    """Append a prompt and a response of which one at least is a list of turns.

    The response's list may begin with the prompt, or hold it: then it is taken once. What is
    before the answer is context.

    Args:
        draft: to append to.
        row: that holds them.
        names: keys of the prompt and of the response.
        second: key of the prompt's further context, if it holds some.
        history: keys of earlier rounds.
        thinking: keys of what the response's author reasoned.
        keys: inside turns.

    Raises:
        RowError: one of them is missing, or no text and no list of turns.
    """
    prompt, response = names
    start = len(draft.turns)
    given = _turns_of(draft, row, prompt, USER, keys)
    answer = _turns_of(draft, row, response, ASSISTANT, keys)
    is_whole = answer[0].role != ASSISTANT  # it begins with a prompt of its own
    is_text = isinstance(row.get(prompt), str)
    place = _run(given, answer, 0 if is_text or not is_whole else len(answer))
    if place is not None:
        before = place + len(given)
        given, answer = answer[:before], answer[before:]
    elif is_whole and is_text:
        # The whole conversation, and beside it one of its prompts, or other words.
        if given[0] not in answer:
            draft.used.remove(prompt)
            second, history = None, ()
        given = []
    if second is not None:
        insert_input(given or answer, text_of(row, second))
        draft.used.append(second)
    draft.turns += given
    middle = len(draft.turns)
    draft.turns += answer
    if response == CHOSEN:
        mask_before_last_prompt(draft, middle)
    draft.mask(start, middle)
    insert_history(draft, row, start, history, keys)
    think(draft, row, start, thinking)


def add_chosen(draft: Draft, row: Row, keys: TurnKeys) -> None:
    """Append the conversation under `CHOSEN`, whose beginning is the prompt."""
    draft.used.append(CHOSEN)
    start = len(draft.turns)
    add_turns(draft, CHOSEN, row[CHOSEN], keys)
    mask_before_last_prompt(draft, start)


def mask_before_last_prompt(draft: Draft, start: int) -> None:
    """Make context of the answers in ``turns[start:]`` that a prompt follows."""
    users = [i for i in range(start, len(draft.turns)) if draft.turns[i].role == USER]
    if users:
        draft.mask(start, users[-1])


def insert_input(turns: list[Turn], text: str) -> None:
    """Put further context behind the last user turn."""
    users = [i for i, turn in enumerate(turns) if turn.role == USER] or [len(turns) - 1]
    turns.insert(users[-1] + 1, Turn(INPUT, text))


def insert_history(
    draft: Draft, row: Row, start: int, names: tuple[str, ...], keys: TurnKeys
) -> None:
    """Put earlier rounds in front of ``turns[start:]``, behind a system turn."""
    if draft.turns[start : start + 1] and draft.turns[start].role == SYSTEM:
        start += 1
    after = draft.turns[start:]
    del draft.turns[start:]
    add_history(draft, row, names, keys)
    draft.turns += after


def think(draft: Draft, row: Row, start: int, names: tuple[str, ...]) -> None:
    """Give what the row says was reasoned to the one answer in ``turns[start:]`` that is scored."""
    turns = draft.turns
    scored = [i for i in range(start, len(turns)) if turns[i].role == ASSISTANT and turns[i].scored]
    if len(scored) != 1 or turns[scored[0]].thinking:
        return
    used: set[str] = set()
    thinking = add_thinking(draft, row, names, used, "")
    draft.used += used
    turns[scored[0]] = turns[scored[0]]._replace(thinking=thinking)


def _turns_of(draft: Draft, row: Row, key: str, role: str, keys: TurnKeys) -> list[Turn]:
    """The turns under a key; of a text one of that role."""
    listed = turns_under(row, key, keys)
    if listed is None:
        return [Turn(role, text_of(row, key))]
    start = len(draft.turns)
    add_turns(draft, key, listed, keys)
    turns = draft.turns[start:]
    del draft.turns[start:]
    return turns


def _run(given: list[Turn], answer: list[Turn], last: int) -> int | None:
    """The first place, up to the last that may be, where the prompt's turns stand in the answer
    with something behind them.
    """
    places = range(min(len(answer) - len(given), last + 1)) if given else ()
    return next((i for i in places if answer[i : i + len(given)] == given), None)
