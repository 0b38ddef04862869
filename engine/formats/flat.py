"""Rows that hold a prompt and a response under keys of their own, as texts or lists of turns."""

from __future__ import annotations

from typing import Final, NamedTuple

from engine import schema
from engine.formats.answers import CHOSEN, add_lists, turns_under
from engine.formats.chat import TurnKeys, add_thinking
from engine.formats.history import add_history
from engine.formats.turns import Draft, Turn
from engine.formats.values import Row, RowError, is_empty, text_of
from engine.schema import ASSISTANT, INPUT, SYSTEM, USER


class Flat(NamedTuple):
    """The keys of one format; of several the first that holds something."""

    prompt: str
    response: str
    second: tuple[str, ...] = ()
    """Further context of the prompt."""
    history: tuple[str, ...] = ("history",)
    """Earlier rounds, a list of pairs."""
    thinking: tuple[str, ...] = ("reasoning_content", "thinking", "reasoning")
    """What the response's author reasoned before it."""


# The second field goes under the format's own name first, then under the others', as rows with
# instruction, input and response exist and must not lose their input.
_FORMATS: Final = (
    Flat("instruction", "output", ("input", "context")),
    Flat("instruction", "response", ("context", "input")),
    Flat("prompt", "response", ("input", "context")),
    Flat("prompt", "completion", ("input", "context")),
    Flat("prompt", CHOSEN, ("input", "context")),
    Flat("instruction", CHOSEN, ("input", "context")),
    Flat("question", "response", ("context", "input")),
    Flat("question", "answer", ("context", "input")),
    Flat("question", CHOSEN, ("context", "input")),
    Flat("query", "response", ("context", "input")),
    Flat("query", "answer", ("context", "input")),
    Flat("prompt", "output", ("input", "context")),
    Flat("prompt", "answer", ("input", "context")),
)
PROMPTS: Final = tuple(dict.fromkeys(known.prompt for known in _FORMATS))
RESPONSES: Final = tuple(dict.fromkeys(known.response for known in _FORMATS))

# Half a flat format: the key a row has, and what it lacks.
_COUNTERPARTS: Final = (
    ("instruction", "output or response"),
    ("prompt", "response or completion"),
    ("output", "instruction"),
    ("response", "instruction or prompt"),
    ("completion", "prompt"),
    (CHOSEN, "prompt"),
    ("question", "answer or response"),
    ("query", "response"),
    ("answer", "question"),
)


def filled_format(row: Row) -> Flat | None:
    """The first flat format with something under both of its keys."""
    for known in _FORMATS:
        if (
            known.prompt in row
            and known.response in row
            and not is_empty(row[known.response])
            and not is_empty(row[known.prompt])
        ):
            return known
    return None


def present_format(row: Row) -> Flat | None:
    """The first flat format whose keys the row has, though not with something under both.

    One whose second field stands in for the prompt is preferred, as Alpaca's instruction may be
    empty beside an input; then one without nulls.
    """
    present = [known for known in _FORMATS if known.prompt in row and known.response in row]
    for known in present:
        if not is_empty(row[known.response]) and first_filled(row, known.second):
            return known
    for known in present:
        if row[known.prompt] is not None and row[known.response] is not None:
            return known
    return present[0] if present else None


def refuse_half(row: Row) -> None:
    """Say what is missing where half a format is there.

    Raises:
        RowError: it is.
    """
    for key, absent in _COUNTERPARTS:
        if key in row:
            raise RowError(schema.MISSING_FIELD, f"{key}, but no {absent}")


def add_flat(draft: Draft, row: Row, known: Flat, keys: TurnKeys) -> None:
    """Append the turns of a prompt and its response.

    Raises:
        RowError: one of them is missing, or no text and no list of turns.
    """
    draft.used += (known.prompt, known.response)
    key = first_filled(row, known.second)
    if any(turns_under(row, name, keys) for name in known[:2]):
        add_lists(draft, row, known[:2], key, known.history, known.thinking, keys)
        return
    is_left_out = key is not None and known.prompt in row and is_empty(row[known.prompt])
    prompt = "" if is_left_out else text_of(row, known.prompt)
    add_history(draft, row, known.history, keys)
    draft.turns.append(Turn(USER, prompt))
    if key is not None:
        draft.turns.append(Turn(INPUT, text_of(row, key)))
        draft.used.append(key)
    response = text_of(row, known.response)
    used: set[str] = set()
    thinking = add_thinking(draft, row, known.thinking, used, "")
    draft.used += used
    draft.turns.append(Turn(ASSISTANT, response, thinking))


def add_system(draft: Draft, row: Row, keys: tuple[str, ...]) -> None:
    """Begin with the system text under the first of the keys that holds one."""
    if key := first_filled(row, keys):
        text = text_of(row, key)
        draft.turns.append(Turn(SYSTEM, text))
        draft.has_system = True
        draft.used += [other for other in keys if row.get(other) == text]


def drop_repeated_system(draft: Draft) -> None:
    """A system text under a key of the row that the chat's first turn repeats is one turn."""
    if draft.has_system and draft.turns[1:2] == draft.turns[:1]:
        del draft.turns[0]


def first_filled(row: Row, keys: tuple[str, ...]) -> str | None:
    """The first of the keys that holds something."""
    for key in keys:
        if key in row and not is_empty(row[key]):
            return key
    return None
