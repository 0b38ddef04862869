"""Rows that hold a prompt and a response under keys of their own, as texts or lists of turns."""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from engine import schema
from engine.formats.chat import TurnKeys, add_turns
from engine.formats.turns import Draft, RowError, Turn
from engine.formats.values import Row, is_empty, json_type, text_of
from engine.schema import ASSISTANT, INPUT, SYSTEM, USER

CHOSEN: Final = "chosen"
"""The better of two responses: of a conversation it holds, only what follows the last prompt is
meant; `rejected` plays no part."""


class Flat(NamedTuple):
    """The keys of one format; of several the first that holds something."""

    prompt: str
    response: str
    second: tuple[str, ...] = ()
    """Further context of the prompt."""
    history: tuple[str, ...] = ("history",)
    """Earlier rounds, a list of pairs."""
    thinking: tuple[str, ...] = ("reasoning_content", "thinking")
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
        if not is_empty(row[known.response]) and _first(row, known.second):
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


def is_conversation(value: object) -> bool:
    """Whether it is a list of objects, as turns are."""
    if not isinstance(value, list) or not value:
        return False
    return isinstance(cast(list[object], value)[0], dict)


def add_flat(draft: Draft, row: Row, known: Flat, keys: TurnKeys) -> None:
    """Append the turns of a prompt and its response.

    Raises:
        RowError: one of them is missing, or no text and no list of turns.
    """
    draft.used += (known.prompt, known.response)
    if is_conversation(row.get(known.prompt)) or is_conversation(row.get(known.response)):
        _add_lists(draft, row, known, keys)
        return
    key = _first(row, known.second)
    is_left_out = key is not None and known.prompt in row and is_empty(row[known.prompt])
    prompt = "" if is_left_out else text_of(row, known.prompt)
    _add_history(draft, row, known.history, keys)
    draft.turns.append(Turn(USER, prompt))
    if key is not None:
        draft.turns.append(Turn(INPUT, text_of(row, key)))
        draft.used.append(key)
    response = text_of(row, known.response)
    draft.turns.append(Turn(ASSISTANT, response, _thinking(draft, row, known.thinking)))


def add_chosen(draft: Draft, row: Row, keys: TurnKeys) -> None:
    """Append the conversation under `CHOSEN`, whose beginning is the prompt."""
    draft.used.append(CHOSEN)
    start = len(draft.turns)
    add_turns(draft, CHOSEN, row[CHOSEN], keys)
    _mask_before_last_prompt(draft, start)


def add_system(draft: Draft, row: Row, keys: tuple[str, ...]) -> None:
    """Begin with the system text under the first of the keys that holds one."""
    if key := _first(row, keys):
        text = text_of(row, key)
        draft.turns.append(Turn(SYSTEM, text))
        draft.has_system = True
        draft.used += [other for other in keys if row.get(other) == text]


def drop_repeated_system(draft: Draft) -> None:
    """A system text under a key of the row that the chat's first turn repeats is one turn."""
    if draft.has_system and draft.turns[1:2] == draft.turns[:1]:
        del draft.turns[0]


def _first(row: Row, keys: tuple[str, ...]) -> str | None:
    """The first of the keys that holds something."""
    for key in keys:
        if key in row and not is_empty(row[key]):
            return key
    return None


def _thinking(draft: Draft, row: Row, keys: tuple[str, ...]) -> str:
    for key in keys:
        value = row.get(key)
        if isinstance(value, str) and value:  # `thinking: true` is no thought
            draft.used += [other for other in keys if row.get(other) == value]
            return value
    return ""


def _add_lists(draft: Draft, row: Row, known: Flat, keys: TurnKeys) -> None:
    """A prompt or a response that is a list of turns; the other may be a text.

    The response's list may begin with the prompt: then it is taken once.
    """
    start = len(draft.turns)
    if is_conversation(row.get(known.prompt)):
        add_turns(draft, known.prompt, row[known.prompt], keys)
    else:
        draft.turns.append(Turn(USER, text_of(row, known.prompt)))
    given = draft.turns[start:]
    middle = len(draft.turns)
    if is_conversation(row.get(known.response)):
        add_turns(draft, known.response, row[known.response], keys)
        answer = draft.turns[middle:]
        is_whole = answer[0].role != ASSISTANT  # it begins with a prompt of its own
        if answer[: len(given)] == given and len(answer) > len(given):
            del draft.turns[start:middle]  # `middle` is now where the repeated prompt ends
        elif is_whole and len(given) == 1 and isinstance(row.get(known.prompt), str):
            # The whole conversation, and beside it one of its prompts, or other words.
            del draft.turns[start:middle]
            middle = start
            if given[0] not in answer:
                draft.used.remove(known.prompt)
        if known.response == CHOSEN:
            _mask_before_last_prompt(draft, middle)
    else:
        draft.turns.append(Turn(ASSISTANT, text_of(row, known.response)))
    draft.mask(start, middle)


def _mask_before_last_prompt(draft: Draft, start: int) -> None:
    users = [i for i in range(start, len(draft.turns)) if draft.turns[i].role == USER]
    if users:
        draft.mask(start, users[-1])


def _add_history(draft: Draft, row: Row, keys: tuple[str, ...], turn_keys: TurnKeys) -> None:
    """Earlier rounds: ``[[user, assistant], …]`` or turns. Their answers are context.

    Raises:
        RowError: they are neither.
    """
    key = _first(row, keys)
    if key is None:
        return
    draft.used.append(key)
    start = len(draft.turns)
    rounds = row[key]
    if is_conversation(rounds):
        add_turns(draft, key, rounds, turn_keys)
    elif isinstance(rounds, list):
        for position, pair in enumerate(cast(list[object], rounds)):
            draft.turns += _round(pair, f"{key}[{position}]")
    else:
        detail = f"{key}: {json_type(rounds)}, expected a list of [user, assistant] pairs"
        raise RowError(schema.WRONG_TYPE, detail)
    draft.mask(start, len(draft.turns))


def _round(pair: object, where: str) -> tuple[Turn, Turn]:
    texts = cast(list[object], pair) if isinstance(pair, list | tuple) else []
    if len(texts) == 2 and isinstance(texts[0], str) and isinstance(texts[1], str):
        return Turn(USER, texts[0]), Turn(ASSISTANT, texts[1])
    raise RowError(schema.WRONG_TYPE, f"{where}: expected a pair of texts, user and assistant")
