"""The law of formats: whatever a row says changes its id, or is listed as playing no part."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import schema
from engine.config import FieldMap
from engine.formats import RowError, convert, row_id
from engine.formats.flat import PROMPTS, RESPONSES

THEMES = (
    ("messages", "conversations", "conversation", "dialog", "turns", "chat"),
    ("prompt", "completion", "chosen", "response", "rejected"),
    (*PROMPTS, *RESPONSES),
    ("input", "context", "history"),
    ("system", "system_prompt"),
    ("reasoning_content", "thinking", "reasoning"),
    ("image", "images", "audio", "tools", "functions"),
    ("id", "source", "meta", "name", "weight", "a key\nwith text"),
)
ROW_KEYS = tuple(dict.fromkeys(key for theme in THEMES for key in theme))
TURN_KEYS = (
    *("weight", "loss", "train", "name", "reasoning_content", "thinking", "reasoning", "images"),
    *("tool_calls", "function_call", "from", "value", "cache"),
)
WORDS = ("one", "two", "three")
FIELDS = (
    None,
    FieldMap(prompt="question", response="answer", history="history", thinking="thinking"),
    FieldMap(turns="dialog", weight="train", thinking="reasoning", system="system"),
)


@st.composite
def turns(draw: st.DrawFn, under: str) -> list[dict[str, Any]]:
    """A chat that alternates, with now and then a key more in a turn."""
    made: list[dict[str, Any]] = []
    if draw(st.booleans()):
        made.append({"role": "system", "content": f"{under} kind"})
    for number in range(draw(st.integers(1, 2))):
        made.append({"role": "user", "content": f"{under} q{number}{draw(st.sampled_from(WORDS))}"})
        made.append(
            {"role": "assistant", "content": f"{under} a{number}{draw(st.sampled_from(WORDS))}"}
        )
    for turn in made:
        for key in draw(st.sets(st.sampled_from(TURN_KEYS), max_size=2)):
            if draw(st.booleans()):
                turn[key] = draw(turn_values(key, turn["role"]))
    if draw(st.booleans()):
        parts = [{"type": "text", "text": made[-1]["content"], "cache": draw(words("cache"))}]
        made[-1]["content"] = parts
    return made


def words(key: str) -> st.SearchStrategy[str]:
    """Texts that no other key has: one that repeats another's says nothing new."""
    return st.sampled_from([f"{key} {word}" for word in WORDS])


def turn_values(key: str, role: str) -> st.SearchStrategy[Any]:
    if key in ("weight", "loss", "train"):
        # 1 is what a turn counts anyway, and 0 what one counts that is not the assistant's.
        return st.sampled_from([0, False, "0", 0.5, 2.0] if role == "assistant" else [1, True, 0.5])
    if key in ("tool_calls", "images"):
        return words(key).map(lambda text: [{"url": text}])
    return words(key)


def row_values(key: str) -> st.SearchStrategy[Any]:
    listed = words(key).map(lambda text: [{"type": text}])
    pairs = words(key).map(lambda text: [[text, "yes"]])
    kinds: dict[str, st.SearchStrategy[Any]] = {"history": pairs | turns(key) | words(key)}
    for name in ("messages", "conversations", "conversation", "dialog", "turns", "chat"):
        kinds[name] = turns(key) | words(key)
    for name in ("prompt", "completion", "chosen", "response"):
        kinds[name] = words(key) | turns(key)
    return kinds.get(key, words(key) | listed | st.integers(1, 3).map(float))


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if draw(st.booleans()):
        pair = (draw(st.sampled_from(PROMPTS)), draw(st.sampled_from(RESPONSES)))
        row.update({key: draw(words(key)) for key in pair})
    else:
        chat = draw(st.sampled_from(("messages", "conversations", "dialog", "chosen")))
        row[chat] = draw(turns(chat))
    for theme in draw(st.sets(st.sampled_from(THEMES), max_size=2)):
        for key in draw(st.sets(st.sampled_from(theme), max_size=3)):
            row[key] = draw(row_values(key))
    return row


def told(row: dict[str, Any], fields: FieldMap | None) -> tuple[str, set[str]]:
    """The row's id, or why it is none, and what is listed of it."""
    try:
        converted = convert(row, fields)
    except RowError as error:
        return error.reason, set()
    assert converted.flag in schema.FLAGS
    return row_id(converted.turns), set(converted.unused)


def law(row: dict[str, Any], other: dict[str, Any], name: str, fields: FieldMap | None) -> None:
    first, listed = told(row, fields)
    second, also = told(other, fields)
    is_rejected = {first, second} & set(schema.REJECT_REASONS)
    assert is_rejected or first != second or name in listed | also, (row, other, name)


@settings(max_examples=200, deadline=None)
@given(rows(), st.data(), st.sampled_from(FIELDS))
def test_a_key_of_a_row_counts_or_is_listed(
    row: dict[str, Any], data: st.DataObject, fields: FieldMap | None
) -> None:
    theme = data.draw(st.sampled_from([tuple(row), *THEMES]))
    key = data.draw(st.sampled_from(theme))
    other = copy.deepcopy(row)
    if key in row and data.draw(st.booleans()):
        del other[key]
    else:
        other[key] = data.draw(row_values(key).filter(lambda value: value != row.get(key)))
    if key in TURN_LISTS and isinstance(row.get(key), list) and isinstance(other.get(key), list):
        return  # what differs is inside, see below
    law(row, other, key, fields)


TURN_LISTS = ("messages", "conversations", "conversation", "dialog", "turns", "chat", "history")


@settings(max_examples=200, deadline=None)
@given(
    turns("x"), st.data(), st.sampled_from(("messages", "dialog", "chosen", "history", "prompt"))
)
def test_a_key_of_a_turn_counts_or_is_listed(
    chat: list[dict[str, Any]], data: st.DataObject, name: str
) -> None:
    row: dict[str, Any] = {name: chat}
    if name in ("history", "prompt"):
        row |= {"instruction": "i", "output": "o"} if name == "history" else {"response": "r"}
    place = data.draw(st.integers(0, len(chat) - 1))
    key = data.draw(st.sampled_from(TURN_KEYS))
    other = copy.deepcopy(row)
    turn = other[name][place]
    if key in turn and data.draw(st.booleans()):
        del turn[key]
    else:
        values = turn_values(key, turn["role"])
        turn[key] = data.draw(values.filter(lambda value: value != chat[place].get(key)))
    if key in MASKS and _says_nothing(name, place, chat, turn, key):
        return
    law(row, other, f"{name}[].{key}", None)


MASKS = ("weight", "loss", "train")


def _says_nothing(
    name: str, place: int, chat: list[dict[str, Any]], turn: dict[str, Any], key: str
) -> bool:
    """Whether a turn is masked before and after, or neither, by masks that all count."""
    if not all(each.get(key, 1) in (0, "0", 1) for each in (chat[place], turn)):
        return False
    if name in ("history", "prompt") or (name == "chosen" and place < len(chat) - 1):
        return turn["role"] == "assistant"  # context anyway
    before, after = (
        any(each.get(mask) in (0, "0") for mask in MASKS) for each in (chat[place], turn)
    )
    return turn["role"] == "assistant" and before == after


@settings(max_examples=200, deadline=None)
@given(rows(), st.data(), st.sampled_from([None, "", [], {}, float("nan"), [None], {"a": [""]}]))
def test_what_counts_as_nothing_changes_nothing(
    row: dict[str, Any], data: st.DataObject, nothing: object
) -> None:
    key = data.draw(st.sampled_from(sorted(set(ROW_KEYS) - set(row))))
    first, listed = told(row, None)
    second, also = told({**row, key: nothing}, None)
    assert (listed, first) == (also, second) or first in schema.REJECT_REASONS
