"""Masks, earlier rounds, pictures, thoughts, tools, preferences: turns by value."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

import pytest

from engine import schema
from engine.config import FieldMap
from engine.formats import RowError, Turn, convert, find, is_empty, is_plain_name

U, A = Turn("user", "q"), Turn("assistant", "a")
MASKED = Turn("assistant", "a", scored=False)


def chat(*more: dict[str, Any], **row: Any) -> dict[str, Any]:
    """A row of user and assistant, each with keys more."""
    user, assistant = (*more, {}, {})[:2]
    return {
        "messages": [
            {"role": "user", "content": "q", **user},
            {"role": "assistant", "content": "a", **assistant},
        ],
        **row,
    }


def rejection(row: dict[str, Any], fields: FieldMap | None = None) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        convert(row, fields)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("key", ["weight", "loss", "train", "trainable", "loss_mask"])
@pytest.mark.parametrize("value", [0, 0.0, False, "0", "0.0", "False", " no ", Decimal(0)])
def test_zero_masks_an_assistant_turn(key: str, value: object) -> None:
    assert convert(chat({}, {key: value})) == ((U, MASKED), schema.ALL_MASKED, ())
    # A user's turn is never scored: nothing to say.
    assert convert(chat({key: value})) == ((U, A), schema.OK, ())


@pytest.mark.parametrize("value", [None, 1, 1.0, True, "1", "true", "", [], {}, float("nan")])
def test_one_or_nothing_scores_it(value: object) -> None:
    assert convert(chat({}, {"weight": value})) == ((U, A), schema.OK, ())


@pytest.mark.parametrize("value", [0.5, 2, -1, 10**400, Decimal("0.1")])
def test_a_weight_between_counts_as_one_and_is_listed(value: object) -> None:
    assert convert(chat({}, {"weight": value})) == ((U, A), schema.OK, ("messages[].weight",))


def test_training_on_a_users_turn_plays_no_part() -> None:
    assert convert(chat({"train": True})).unused == ("messages[].train",)


@pytest.mark.parametrize(
    ("value", "kind"), [("half", "text"), ([1], "a list"), ({"a": 1}, "an object")]
)
def test_a_mask_that_cannot_be_read_is_rejected(value: object, kind: str) -> None:
    detail = f"messages[1].loss: {kind}, expected 0 or 1"
    assert rejection(chat({}, {"loss": value})) == (schema.WRONG_TYPE, detail)
    assert convert(chat({"loss": value})).unused == ("messages[].loss",)


def test_any_of_several_masks_is_enough() -> None:
    assert convert(chat({}, {"weight": 1, "train": False})).turns == (U, MASKED)


def test_all_masked_goes_before_empty_response() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "weight": 0}]
    assert convert({"messages": turns}).flag == schema.ALL_MASKED
    turns += [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert convert({"messages": turns}).flag == schema.EMPTY_RESPONSE


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (
            {"history": [["h", "g"]]},
            (Turn("user", "h"), Turn("assistant", "g", scored=False), U, A),
        ),
        (
            {"system": "s", "history": [("h", "g")], "input": "i"},
            (
                Turn("system", "s"),
                Turn("user", "h"),
                Turn("assistant", "g", scored=False),
                U,
                Turn("input", "i"),
                A,
            ),
        ),
        (
            {"history": [{"role": "user", "content": "h"}, {"from": "gpt", "value": "g"}]},
            (Turn("user", "h"), Turn("assistant", "g", scored=False), U, A),
        ),
        ({"history": []}, (U, A)),
        ({"history": [[]]}, (U, A)),
        ({"input": "", "context": "c"}, (U, Turn("input", "c"), A)),
        ({"input": [], "context": {}}, (U, A)),
    ],
)
@pytest.mark.parametrize("keys", [("instruction", "output"), ("prompt", "response")])
def test_what_goes_before_a_flat_prompt(
    row: dict[str, Any], turns: tuple[Turn, ...], keys: tuple[str, str]
) -> None:
    assert convert({keys[0]: "q", keys[1]: "a", **row}) == (turns, schema.OK, ())


@pytest.mark.parametrize(
    "history", ["h", {"a": "b"}, [["h"]], [["h", None]], [["a", "b", "c"]], [7]]
)
def test_history_in_another_shape_is_rejected_not_dropped(history: object) -> None:
    row = {"instruction": "q", "output": "a", "history": history}
    reason, detail = rejection(row)
    assert (reason, detail.startswith("history")) == (schema.WRONG_TYPE, True)
    assert convert(row, FieldMap(prompt="instruction", response="output")).unused == ("history",)


@pytest.mark.parametrize(
    "key",
    [
        *("image", "images", "image_path", "image_id", "video", "audio", "audio_url", "img"),
        *("media", "picture", "image_bytes", "image_base64", "images_path", "image_name"),
        *("decoded_image", "image0", "image_1", "Image", "imageUrl", "wav", "speech", "photos"),
    ],
)
def test_media_are_flagged_and_in_the_id(key: str) -> None:
    for value in ("a.png", ["a.png"], {"path": "a.png", "bytes": None}, b"\xff"):
        for row in (chat(**{key: value}), chat({key: value})):
            turns, flag, unused = convert(row)
            assert (flag, unused) == (schema.NON_TEXT_CONTENT, ())
            assert [turn.role for turn in turns if turn.role not in ("user", "assistant")] == [key]
    for nothing in (None, "", [], {}, {"path": None, "bytes": None}, [None]):
        assert convert(chat({key: nothing}, **{key: nothing})) == ((U, A), schema.OK, ())
    assert convert(chat(**{key: False})) == ((U, A), schema.OK, (key,))


def test_a_large_picture_stands_in_the_turns_by_its_digest() -> None:
    value = "x" * 5000
    digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    assert convert(chat(image=value)).turns[2] == Turn("image", f"sha256:{digest}")


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_of_an_assistant_turn(key: str) -> None:
    assert convert(chat({}, {key: "t"})) == ((U, Turn("assistant", "a", "t")), schema.OK, ())
    assert convert(chat({key: "t"})).unused == (f"messages[].{key}",)
    assert convert(chat({}, {key: True})) == ((U, A), schema.OK, (f"messages[].{key}",))
    assert convert(chat({}, {key: None})) == ((U, A), schema.OK, ())


def test_thoughts_twice() -> None:
    same = convert(chat({}, {"reasoning_content": "t", "reasoning": "t"}))
    assert (same.turns[1].thinking, same.unused) == ("t", ())
    other = convert(chat({}, {"reasoning_content": "t", "reasoning": "u"}))
    assert (other.turns[1].thinking, other.unused) == ("t", ("messages[].reasoning",))


def test_thoughts_of_a_flat_row() -> None:
    row = {"prompt": "q", "response": "a", "thinking": "t", "reasoning": "r"}
    assert convert(row) == ((U, Turn("assistant", "a", "t")), schema.OK, ("reasoning",))


@pytest.mark.parametrize("key", ["tools", "functions"])
def test_tools_that_are_offered(key: str) -> None:
    turns, flag, unused = convert(chat(**{key: [{"name": "add"}]}))
    assert (turns[2], flag, unused) == (Turn(key, '[{"name":"add"}]'), schema.TOOL_TURN, ())
    for nothing in (None, [], "", "[]", " {} ", "null", [{"name": None}]):
        assert convert(chat(**{key: nothing})).flag == schema.OK


@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
@pytest.mark.parametrize("value", [None, [], {}, "", "[]", {"name": None, "arguments": None}, [{}]])
def test_no_call(key: str, value: object) -> None:
    turns, flag, _ = convert(chat({}, {key: value}))
    assert (turns, flag) == ((U, A), schema.OK)


@pytest.mark.parametrize(
    ("system", "turn", "found", "flag"),
    [
        ("s", "s", ["s"], schema.OK),
        ("s", None, ["s"], schema.OK),
        ("s", "t", ["s", "t"], schema.ROLES_NOT_ALTERNATING),
        ("", "t", ["t"], schema.OK),
        (None, "t", ["t"], schema.OK),
    ],
)
@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_system_key_beside_a_system_turn(
    key: str, system: str | None, turn: str | None, found: list[str], flag: str
) -> None:
    row = chat(**{key: system})
    if turn is not None:
        row["messages"].insert(0, {"role": "system", "content": turn})
    turns, got, unused = convert(row)
    assert [t.content for t in turns if t.role == "system"] == found
    assert (got, unused) == (flag, ())


def test_a_chats_own_two_system_turns_stay_two() -> None:
    row = chat()
    row["messages"][:0] = [{"role": "system", "content": "s"}] * 2
    assert convert(row).flag == schema.ROLES_NOT_ALTERNATING


def test_two_system_keys() -> None:
    assert convert(chat(system="s", system_prompt="s")).unused == ()
    assert convert(chat(system="s", system_prompt="t")).unused == ("system_prompt",)


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


Q, R = [message("user", "q")], [message("assistant", "a")]
ROUND = [message("user", "h"), message("assistant", "g")]
BEFORE = (Turn("user", "h"), Turn("assistant", "g", scored=False))


@pytest.mark.parametrize(
    ("row", "turns", "unused"),
    [
        ({"prompt": Q, "completion": R}, (U, A), ()),
        ({"prompt": Q, "completion": "a"}, (U, A), ()),
        ({"prompt": "q", "completion": R}, (U, A), ()),
        ({"prompt": [*ROUND, *Q], "completion": R}, (*BEFORE, U, A), ()),
        ({"prompt": [*ROUND, *Q], "response": "a"}, (*BEFORE, U, A), ()),
        ({"prompt": Q, "chosen": R, "rejected": R}, (U, A), ("rejected",)),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, (U, A), ("rejected",)),
        # the list under chosen holds the prompt again: all of it, or its last turn
        ({"prompt": "q", "chosen": [*Q, *R]}, (U, A), ()),
        ({"prompt": Q, "chosen": [*Q, *R]}, (U, A), ()),
        ({"prompt": [*ROUND, *Q], "chosen": [*ROUND, *Q, *R]}, (*BEFORE, U, A), ()),
        ({"prompt": "q", "chosen": [*ROUND, *Q, *R]}, (*BEFORE, U, A), ()),
        ({"prompt": "other", "chosen": [*ROUND, *Q, *R]}, (*BEFORE, U, A), ("prompt",)),
        # no prompt at all
        ({"chosen": [*ROUND, *Q, *R], "rejected": R}, (*BEFORE, U, A), ("rejected",)),
        # a whole conversation as completion: all of its answers are meant
        (
            {"prompt": Q, "completion": [*R, *Q, *R]},
            (U, A, U, A),
            (),
        ),
        # chats go first, other names for them last
        (chat(chosen=R, prompt="q"), (U, A), ("chosen", "prompt")),
        ({"prompt": "q", "response": "a", "turns": ROUND}, (U, A), ("turns",)),
        ({"prompt": "q", "dialogue": [*Q, *R]}, (U, A), ("prompt",)),
        ({"turns": 2, "question": "q", "answer": "a"}, (U, A), ("turns",)),
    ],
)
def test_lists_and_preferences(
    row: dict[str, Any], turns: tuple[Turn, ...], unused: tuple[str, ...]
) -> None:
    assert convert(row) == (turns, schema.OK, unused)


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"messages": [], "conversations": [*Q, *R]}, "q a"),
        ({"messages": {}, "instruction": "i", "output": "o"}, "i o"),
        ({"instruction": "", "output": "", "prompt": "p", "response": "r"}, "p r"),
        ({"instruction": "i", "output": "", "response": "r"}, "i r"),
        ({"instruction": "", "input": "i", "output": "o", "prompt": "p"}, "p i o"),
        ({"instruction": None, "input": "i", "output": "o"}, " i o"),
        ({"prompt": None, "input": "i", "chosen": [*Q, *R]}, "q a"),
        ({"messages": [{"role": "user", "content": "", "value": "v"}]}, "v"),
        ({"messages": [{"role": "", "from": "user", "content": [], "value": "v"}]}, "v"),
    ],
)
def test_nothing_stands_in_nobodys_way(row: dict[str, Any], texts: str) -> None:
    assert " ".join(turn.content for turn in convert(row).turns) == texts


def test_every_other_key_is_listed_where_it_stands() -> None:
    part = {"type": "text", "text": "q", "cache_control": {"type": "x"}, "none": None}
    row = chat({"content": [part], "name": "Ann"}, {"name": "Bob", "id": 3}, id=7, tags=[], n=0)
    assert convert(row) == (
        (U, A),
        schema.OK,
        ("messages[].content[].cache_control", "messages[].name", "messages[].id", "id", "n"),
    )


def test_fields_name_history_thoughts_and_weights() -> None:
    fields = FieldMap(prompt="p", response="r", history="before", thinking="why")
    row = {"p": "q", "r": "a", "before": [["h", "g"]], "why": "t", "context": "x", "history": "y"}
    answer = Turn("assistant", "a", "t")
    assert convert(row, fields) == ((*BEFORE, U, answer), schema.OK, ("context", "history"))
    fields = FieldMap(turns="messages", weight="score", thinking="why")
    found = convert(chat({}, {"score": 0, "weight": 1, "why": "t"}), fields)
    assert found.turns[1] == Turn("assistant", "a", "t", scored=False)
    assert found.unused == ("messages[].weight",)


@pytest.mark.parametrize(
    ("name", "text", "unused"),
    [
        ("a", "1", ("meta", "meta.x", "deep")),
        ("meta.x", "dotted", ("a", "meta", "deep")),
        ("meta.y", "in", ("a", "meta.x", "deep", "meta.z")),
        ("deep.er.est", '{"k":[true]}', ("a", "meta", "meta.x")),
    ],
)
def test_find(name: str, text: str, unused: tuple[str, ...]) -> None:
    row = {
        "a": 1,
        "meta": {"x": "no", "y": "in", "z": 2, "empty": ""},
        "meta.x": "dotted",
        "deep": {"er.est": {"k": [True]}},
    }
    if name == "meta.y":
        unused = ("a", "meta.x", "deep", "meta.x", "meta.z")
    found = find(row, name)
    assert found is not None
    assert (found.text, found.left_of(tuple(row))) == (text, unused)


def test_of_every_object_on_the_way_the_other_keys_are_left() -> None:
    row = {"meta": {"info": {"source": "s", "y": 1}, "other": 2, "empty": {}}, "id": 3}
    found = find(row, "meta.info.source")
    assert found is not None
    assert found.left_of(("meta", "id")) == ("id", "meta.other", "meta.info.y")
    assert found.left_of(("id",)) == ("id",)


@pytest.mark.parametrize("name", ["b", "meta.w", "meta.empty", "a.x", "meta..y", ".", ""])
def test_find_nothing(name: str) -> None:
    assert find({"a": 1, "meta": {"y": "in", "empty": []}}, name) is None


@pytest.mark.parametrize("value", [0, False, " ", [0], {"a": [None, "x"]}, b"x", 0.0, "null"])
def test_values_that_count(value: object) -> None:
    assert not is_empty(value)


def test_emptiness_of_a_deep_nest_needs_no_stack() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert is_empty(value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("messages[].name", True), ("a.b-c_1", True), ("a[].b[].c", True), ("x" * 41, False)]
    + [(name, False) for name in ("", "two words", "a\x1b[31m", "é", "1a", "a[]", "[].a")],
)
def test_plain_names(name: str, shown: bool) -> None:
    assert is_plain_name(name) == shown
