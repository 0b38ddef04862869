"""What stands beside turns under keys of the row: answers, context, rounds, thoughts, by value."""

from __future__ import annotations

from typing import Any

import pytest

from engine import schema
from engine.config import FieldMap
from engine.formats import RowError, Turn, convert, row_id

U, A = Turn("user", "q"), Turn("assistant", "a")
BEFORE = (Turn("user", "h"), Turn("assistant", "g", scored=False))
C = Turn("input", "c")
S = Turn("system", "s")
THOUGHT = Turn("assistant", "a", "t")


def m(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


Q, R, SYS = [m("user", "q")], [m("assistant", "a")], [m("system", "s")]
ROUND = [m("user", "h"), m("assistant", "g")]
GPT = {"from": "gpt", "value": "a"}


@pytest.mark.parametrize(
    ("row", "turns", "unused"),
    [
        # a chat that ends in a prompt, answered under another key
        (
            {
                "conversations": [
                    {"from": "human", "value": "h"},
                    {"from": "gpt", "value": "g"},
                    {"from": "human", "value": "q"},
                ],
                "chosen": GPT,
                "rejected": {"from": "gpt", "value": "b"},
            },
            (*BEFORE, U, A),
            ("rejected",),
        ),
        ({"messages": Q, "chosen": R}, (U, A), ()),
        ({"messages": Q, "chosen": [*Q, *R]}, (U, A), ()),
        ({"messages": Q, "chosen": "a"}, (U, A), ()),
        ({"messages": [*SYS, *Q], "completion": "a"}, (S, U, A), ()),
        ({"system": "s", "messages": [*SYS, *Q], "response": "a"}, (S, U, A), ()),
        ({"messages": Q, "answer": "a", "prompt": "q"}, (U, A), ("prompt",)),
        ({"dialog": Q, "response": m("assistant", "a")}, (U, A), ()),
        # one that has its answer keeps it
        ({"messages": [*Q, *R], "chosen": "b"}, (U, A), ("chosen",)),
        # an object as response
        ({"prompt": "q", "chosen": GPT, "rejected": "b"}, (U, A), ("rejected",)),
        ({"prompt": Q, "chosen": GPT}, (U, A), ()),
        ({"prompt": m("user", "q"), "completion": R}, (U, A), ()),
        # context, rounds, thoughts beside lists
        ({"prompt": Q, "completion": R, "context": "c"}, (U, C, A), ()),
        ({"prompt": Q, "chosen": [*Q, *R], "input": "c"}, (U, C, A), ()),
        ({"prompt": "q", "chosen": [*Q, *R], "context": "c"}, (U, C, A), ()),
        ({"prompt": [*SYS, *Q], "completion": R, "history": [["h", "g"]]}, (S, *BEFORE, U, A), ()),
        ({"prompt": Q, "completion": R, "reasoning": "t"}, (U, THOUGHT), ()),
        # and beside messages
        ({"messages": [*Q, *R], "context": "c"}, (U, C, A), ()),
        ({"messages": [*Q, *R], "input": "c"}, (U, C, A), ()),
        ({"messages": [*ROUND, *Q, *R], "context": "c"}, None, ()),
        ({"messages": [*SYS, *Q, *R], "history": [["h", "g"]]}, (S, *BEFORE, U, A), ()),
        ({"system": "s", "messages": [*Q, *R], "history": ROUND}, (S, *BEFORE, U, A), ()),
        ({"messages": [*Q, *R], "reasoning_content": "t"}, (U, THOUGHT), ()),
        ({"messages": [*Q, *R], "thinking": "t"}, (U, THOUGHT), ()),
        # what the chat says already, or what belongs to another prompt, is listed
        (
            {"messages": [m("user", "q c"), *R], "context": "c"},
            (Turn("user", "q c"), A),
            ("context",),
        ),
        (
            {"messages": [*Q, *R], "instruction": "p", "input": "c"},
            (U, A),
            ("instruction", "input"),
        ),
        ({"messages": [*Q, *R], "history": "text"}, (U, A), ("history",)),
        # the whole conversation under chosen
        ({"prompt": Q, "chosen": [*SYS, *Q, *R]}, (S, U, A), ()),
        ({"prompt": Q, "chosen": [*SYS, *ROUND, *Q, *R]}, (S, *BEFORE, U, A), ()),
        # an empty system turn is none
        ({"messages": [m("system", ""), *Q, *R]}, (U, A), ()),
        ({"messages": [{"role": "system", "content": None}, *Q, *R]}, (U, A), ()),
        ({"prompt": [m("system", ""), *Q], "completion": R}, (U, A), ()),
    ],
)
def test_what_stands_beside(
    row: dict[str, Any], turns: tuple[Turn, ...] | None, unused: tuple[str, ...]
) -> None:
    if turns is None:
        turns = (BEFORE[0], BEFORE[1]._replace(scored=True), U, C, A)
    assert convert(row) == (turns, schema.OK, unused)


def test_rows_that_differ_beside_the_turns_are_no_duplicates() -> None:
    for row in ({"prompt": Q, "completion": R}, {"messages": [*Q, *R]}):
        for key in ("context", "input", "thinking", "reasoning_content"):
            ids = {row_id(convert({**row, key: text}).turns) for text in ("c", "d")}
            assert len(ids) == 2


@pytest.mark.parametrize(
    "history",
    [
        [{"user": "h", "assistant": "g"}],
        [{"prompt": "h", "response": "g"}],
        [{"instruction": "h", "output": "g"}],
        [{"human": "h", "gpt": "g"}],
        [{"question": "h", "answer": "g"}],
    ],
)
def test_rounds_as_objects(history: object) -> None:
    row = {"instruction": "q", "output": "a", "history": history}
    assert convert(row) == ((*BEFORE, U, A), schema.OK, ())


def test_what_a_round_holds_besides_is_listed() -> None:
    history = [{"user": "h", "assistant": "g", "time": 3}]
    row = {"instruction": "q", "output": "a", "history": history}
    assert convert(row).unused == ("history[].time",)


@pytest.mark.parametrize("history", ["[]", "[[]]", "null", "None", "nan", " "])
def test_no_history_in_a_text(history: str) -> None:
    row = {"instruction": "q", "output": "a", "history": history}
    assert convert(row) == ((U, A), schema.OK, ())


@pytest.mark.parametrize("tools", ["[ ]", "[{}]", "None", "nan", "NaN", "[]", '[{"name": null}]'])
def test_absent_tools_are_neither_tools_nor_listed(tools: str) -> None:
    assert convert({"prompt": "q", "response": "a", "tools": tools}) == ((U, A), schema.OK, ())
    turns = [*Q, {**R[0], "tool_calls": tools}]
    assert convert({"messages": turns}) == ((U, A), schema.OK, ())


def test_thoughts_that_are_no_text_are_flagged() -> None:
    for value, text in ((["t"], '["t"]'), ({"content": "t"}, '{"content":"t"}')):
        thought = Turn("assistant", "a", text)
        turns = [*Q, {**R[0], "reasoning_content": value}]
        assert convert({"messages": turns}) == ((U, thought), schema.NON_TEXT_CONTENT, ())
        row = {"prompt": "q", "response": "a", "reasoning": value}
        assert convert(row) == ((U, thought), schema.NON_TEXT_CONTENT, ())
    assert convert({"messages": [*Q, {**R[0], "thinking": 7}]}).unused == ("messages[].thinking",)


def test_null_content_beside_thoughts_is_an_empty_response() -> None:
    for content in (None, ""):
        turns = [*Q, {"role": "assistant", "content": content, "reasoning_content": "t"}]
        found = convert({"messages": turns})
        assert (found.turns[1], found.flag) == (Turn("assistant", "", "t"), schema.EMPTY_RESPONSE)


def test_named_keys_hold_inside_conversational_fields() -> None:
    fields = FieldMap(
        prompt="p", response="r", role="who", content="says", weight="w", roles={"client": "user"}
    )
    row = {
        "p": [{"who": "client", "says": "q"}],
        "r": [
            {"who": "gpt", "says": "a", "w": 0},
            {"who": "user", "says": "q"},
            {"who": "bot", "says": "a"},
        ],
    }
    masked = A._replace(scored=False)
    assert convert(row, fields) == ((U, masked, U, A), schema.OK, ())


def test_named_turns_take_both_usual_names() -> None:
    row = {"talk": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert convert(row, FieldMap(turns="talk")) == ((U, A), schema.OK, ())


@pytest.mark.parametrize("name", ["input", "history"])
def test_fields_that_turns_would_ignore_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="input and history go with prompt and response"):
        FieldMap(turns="t", **{name: "x"})


def test_an_object_without_a_role_is_no_answer() -> None:
    with pytest.raises(RowError, match="chosen: an object, expected text"):
        convert({"prompt": "q", "chosen": {"text": "a"}})
