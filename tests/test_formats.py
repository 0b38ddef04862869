"""Rows to conversations: every line of docs/formats.md, and what the page has no room for."""

from __future__ import annotations

import copy
import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import schema
from engine.config import FieldMap
from engine.formats import RowError, Turn, canonical, json_text, row_id, to_conversation
from engine.readers import PoolFile, cut, read_lines

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}


def examples(section: str) -> list[tuple[str, ...]]:
    """The cells of the section's table rows that hold an example row in JSON."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]
    return [row for row in rows if any(re.match(r"`[{\[]", cell) for cell in row)]


def outcome(text: str, folder: Path) -> tuple[str, str]:
    """What becomes of one line of JSONL: its roles and its flag, or "" and the reject reason."""
    path = folder / "pool.jsonl"
    path.write_text(text + "\n", encoding="utf-8")
    (piece,) = cut(PoolFile(path, path.name))
    (line,) = read_lines(piece)
    if line.row is None:
        return "", str(line.reason)
    try:
        turns, flag = to_conversation(line.row)
    except RowError as error:
        return "", error.reason
    return ", ".join(turn.role for turn in turns), flag


def chat(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def rejection(row: dict[str, object], fields: FieldMap | None = None) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        to_conversation(row, fields)
    return caught.value.reason, caught.value.detail


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("case", "example", "roles"), examples("Mapped"))
def test_page_mapped(case: str, example: str, roles: str, tmp_path: Path) -> None:
    assert outcome(example.strip("`"), tmp_path) == (roles, schema.OK), case


@pytest.mark.parametrize(("flag", "when", "example"), examples("Flagged"))
def test_page_flagged(flag: str, when: str, example: str, tmp_path: Path) -> None:
    assert outcome(example.strip("`"), tmp_path)[1] == flag.strip("`"), when


@pytest.mark.parametrize(("reason", "when", "example"), examples("Rejected"))
def test_page_rejected(reason: str, when: str, example: str, tmp_path: Path) -> None:
    assert outcome(example.strip("`"), tmp_path) == ("", reason.strip("`")), when


def test_page_names_every_flag_and_reason() -> None:
    assert len(examples("Mapped")) == 33
    assert len(examples("Flagged")) == 15
    assert len(examples("Rejected")) == 14
    assert [code for code in schema.FLAGS if f"`{code}`" not in SECTIONS["Flagged"]] == []
    assert [code for code in schema.REJECT_REASONS if f"`{code}`" not in SECTIONS["Rejected"]] == []


def test_page_lists_every_role_name() -> None:
    written = re.findall(
        r"^\| (?:`(\w+)`|a tool's turn) \| (.*) \|$", SECTIONS["Mapped"], flags=re.M
    )
    names = [(role, name) for role, cell in written for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) == 16
    for role, name in names:
        for spelling in (name, name.upper()):
            turns, flag = to_conversation(chat(("user", "q"), (spelling, "a"), ("assistant", "b")))
            if role:
                assert turns[1].role == role
            else:
                assert (turns[1].role, flag) == (spelling, schema.TOOL_TURN)


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            {"instruction": "Say hé\n", "input": "", "output": 'A "b" \\ \x00 \u2028'},
            '[["user","Say hé\\n"],["assistant","A \\"b\\" \\\\ \\u0000 \u2028"]]',
        ),
        (
            {"system": "S", "instruction": "I", "context": "C", "response": "R"},
            '[["system","S"],["user","I"],["input","C"],["assistant","R"]]',
        ),
        (
            {"conversations": [{"from": "human", "value": "😀"}, {"from": "gpt", "value": "שלום"}]},
            '[["user","😀"],["assistant","שלום"]]',
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "b": 1, "a": [None, "é"]}]},
                    {"role": "assistant", "content": "x"},
                ]
            },
            r'[["user","[{\"a\":[null,\"é\"],\"b\":1,\"type\":\"image\"}]"],["assistant","x"]]',
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "gpt", "content": None, "tool_calls": [{"id": 1}]},
                    {"role": "Tool", "content": {"b": 2, "a": 1}},
                ]
            },
            r'[["user","q"],["assistant",""],["tool_calls","[{\"id\":1}]"],'
            r'["Tool","{\"a\":1,\"b\":2}"]]',
        ),
    ],
)
def test_id_is_sha256_of_canonical_json(row: dict[str, object], text: str) -> None:
    turns, _ = to_conversation(row)
    assert canonical(turns) == text.encode()
    assert row_id(turns) == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_golden_ids() -> None:
    # printf '%s' '[["user","2+2?"],["assistant","4"]]' | sha256sum
    assert (
        row_id((Turn("user", "2+2?"), Turn("assistant", "4"))) == "88dd5474f0d64528167090c402d62737"
    )
    # printf '%s' '[["user","Add."],["input","2, 2"],["assistant","4 é"]]' | sha256sum
    turns = (Turn("user", "Add."), Turn("input", "2, 2"), Turn("assistant", "4 é"))
    assert row_id(turns) == "34416c12a47f0c634170a5598e7a2808"


def test_same_conversation_same_id_in_every_format() -> None:
    rows: list[dict[str, object]] = [
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "input": None, "output": "a", "id": 7},
        {"instruction": "q", "context": "", "response": "a"},
        {"prompt": "q", "response": "a", "system": ""},
        {"prompt": "q", "completion": "a", "system_prompt": None},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"role": "user", "content": "q"}, {"role": "model", "content": "a"}]},
        {"messages": [{"from": "prompter", "value": "q"}, {"from": "bing", "value": "a"}]},
        chat(("user", "q"), ("assistant", "a")),
    ]
    assert {to_conversation(row) for row in rows} == {
        ((Turn("user", "q"), Turn("assistant", "a")), schema.OK)
    }


def test_input_is_a_turn_of_its_own() -> None:
    joined, _ = to_conversation({"instruction": "q i", "output": "a"})
    apart, _ = to_conversation({"instruction": "q", "input": "i", "output": "a"})
    blank, _ = to_conversation({"instruction": "q", "input": " ", "output": "a"})
    assert len({row_id(turns) for turns in (joined, apart, blank)}) == 3
    assert blank == (Turn("user", "q"), Turn("input", " "), Turn("assistant", "a"))


# ── which format ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        # messages, conversations, Alpaca, Dolly, prompt: in this order
        ({**chat(("user", "m"), ("gpt", "n")), "prompt": "p", "response": "r"}, "m n"),
        (
            {**chat(("user", "m"), ("gpt", "n")), "conversations": [{"from": "gpt", "value": "c"}]},
            "m n",
        ),
        ({"conversations": [{"from": "user", "value": "c"}], "prompt": "p", "response": "r"}, "c"),
        ({"instruction": "i", "output": "o", "response": "r", "prompt": "p"}, "i o"),
        ({"instruction": "i", "response": "r", "prompt": "p"}, "i r"),
        ({"prompt": "p", "response": "r", "completion": "c"}, "p r"),
        # the second field under its own name first, else under the other's
        ({"instruction": "i", "input": "1", "context": "2", "output": "o"}, "i 1 o"),
        ({"instruction": "i", "input": "1", "context": "2", "response": "r"}, "i 2 r"),
        ({"instruction": "i", "context": "2", "output": "o"}, "i 2 o"),
        ({"instruction": "i", "input": "1", "response": "r"}, "i 1 r"),
        # nulls of a merged schema stand in nobody's way
        ({"messages": None, "conversations": None, "prompt": "p", "completion": "c"}, "p c"),
        ({"instruction": "i", "output": None, "input": None, "response": "r"}, "i r"),
        ({"instruction": None, "output": None, "prompt": "p", "response": "r"}, "p r"),
        ({"system": None, "system_prompt": "s", "prompt": "p", "response": "r"}, "s p r"),
        ({"system": "s", "system_prompt": "t", "prompt": "p", "response": "r"}, "s p r"),
        ({"system": "s", **chat(("user", "m"), ("gpt", "n"))}, "s m n"),
        (
            {"messages": [{"role": None, "from": "user", "content": None, "value": "v"}]},
            "v",
        ),
        ({"messages": [{"role": "user", "content": ["a", {"text": "b"}]}]}, "ab"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": []}]}, "a"),
    ],
)
def test_precedence(row: dict[str, object], texts: str) -> None:
    turns, _ = to_conversation(row)
    assert " ".join(turn.content for turn in turns) == texts


def test_field_map_flat() -> None:
    fields = FieldMap(prompt="question", input="passage", response="answer", system="persona")
    row: dict[str, object] = {"question": "q", "passage": "i", "answer": "a", "persona": "s"}
    assert to_conversation(row, fields) == (
        (Turn("system", "s"), Turn("user", "q"), Turn("input", "i"), Turn("assistant", "a")),
        schema.OK,
    )
    # Only the keys it names are looked at.
    row = {"question": "q", "answer": "a", "system": "no", "input": "no", "messages": []}
    assert to_conversation(row, fields)[0] == (Turn("user", "q"), Turn("assistant", "a"))
    assert rejection({"question": "q"}, fields) == (schema.MISSING_FIELD, "no answer")
    assert rejection({"question": 1, "answer": "a"}, fields) == (
        schema.WRONG_TYPE,
        "question: a number, expected text",
    )


def test_field_map_chat() -> None:
    fields = FieldMap(
        turns="dialog",
        role="who",
        content="says",
        system="persona",
        roles={"client": "user", "agent": "gpt", "notes": "input", "model": "user", "x": "tool"},
    )

    def dialog(*names: str) -> dict[str, object]:
        return {"dialog": [{"who": name, "says": name} for name in names], "persona": "p"}

    assert to_conversation(dialog("client", "notes", "agent", "human"), fields) == (
        (
            Turn("system", "p"),
            Turn("user", "client"),
            Turn("input", "notes"),
            Turn("assistant", "agent"),
            Turn("user", "human"),
        ),
        schema.OK,
    )
    # The map goes before the known names, and a tool it names is a tool.
    assert to_conversation(dialog("model"), fields)[0][1] == Turn("user", "model")
    assert to_conversation(dialog("client", "x", "gpt"), fields)[1] == schema.TOOL_TURN
    assert rejection({"messages": []}, fields) == (schema.MISSING_FIELD, "no dialog")
    assert rejection({"dialog": [{"role": "user"}]}, fields) == (
        schema.MISSING_FIELD,
        "dialog[0]: no who",
    )
    wrong = FieldMap(turns="dialog", role="who", content="says", roles={"client": "customer"})
    assert rejection(dialog("client"), wrong) == (schema.UNKNOWN_ROLE, "dialog[0].who: customer")


# ── flags and rejects beyond the page ────────────────────────────────────────────────────────────

U, N, A, S = ("user", "q"), ("notes", "i"), ("assistant", "a"), ("system", "s")
NO_USER, NO_TEXT = ("user", " \n"), ("assistant", "\u00a0")


@pytest.mark.parametrize(
    ("turns", "flag"),
    [
        ([S, U, N, A, U, N, A], schema.OK),
        ([U, A, NO_USER, A], schema.OK),
        ([U, A, U, N], schema.OK),
        ([NO_USER, N, A], schema.OK),
        ([S], schema.NO_RESPONSE),
        ([S, S, U], schema.NO_RESPONSE),
        ([A], schema.ASSISTANT_FIRST),
        ([S, S, A, U], schema.ASSISTANT_FIRST),
        ([N, A], schema.ASSISTANT_FIRST),
        ([U, A, A], schema.ROLES_NOT_ALTERNATING),
        ([U, A, U, U], schema.ROLES_NOT_ALTERNATING),
        ([S, S, U, A], schema.ROLES_NOT_ALTERNATING),
        ([U, A, S], schema.ROLES_NOT_ALTERNATING),
        ([N, U, A], schema.ROLES_NOT_ALTERNATING),
        ([U, N, N, A], schema.ROLES_NOT_ALTERNATING),
        ([U, A, N], schema.ROLES_NOT_ALTERNATING),
        ([U, U, NO_TEXT], schema.ROLES_NOT_ALTERNATING),
        ([NO_USER, NO_TEXT], schema.EMPTY_PROMPT),
        ([NO_USER, ("notes", "\t"), A], schema.EMPTY_PROMPT),
        ([U, A, U, NO_TEXT], schema.EMPTY_RESPONSE),
        ([U, ("assistant", "\u200b")], schema.OK),  # zero width, but not white space
        ([A, ("tool", "t")], schema.TOOL_TURN),
    ],
)
def test_flags(turns: list[tuple[str, str]], flag: str) -> None:
    fields = FieldMap(turns="messages", roles={"notes": "input"})
    assert to_conversation(chat(*turns), fields)[1] == flag


@pytest.mark.parametrize(
    ("content", "flag", "text"),
    [
        ([], schema.EMPTY_PROMPT, ""),
        ([{"type": "input_text", "text": "a"}, "b"], schema.OK, "ab"),
        ([{"type": "text", "text": None}], schema.EMPTY_PROMPT, ""),
        ([None, {}, {"type": "text", "text": None}, "", {"text": "a"}], schema.OK, "a"),
        (
            [{"type": "image", "image": None}],
            schema.NON_TEXT_CONTENT,
            '[{"image":null,"type":"image"}]',
        ),
        (
            [{"type": ["text"], "text": "a"}],
            schema.NON_TEXT_CONTENT,
            '[{"text":"a","type":["text"]}]',
        ),
        (["a", 1], schema.NON_TEXT_CONTENT, '["a",1]'),
        ([b"\xff", float("nan")], schema.NON_TEXT_CONTENT, '["/w==",null]'),
    ],
)
def test_list_valued_content(content: list[object], flag: str, text: str) -> None:
    row: dict[str, object] = {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]
    }
    turns, found = to_conversation(row)
    assert (turns[0].content, found) == (text, flag)


def test_tool_calls_are_flagged_whatever_the_content() -> None:
    for call in ({"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}):
        for content in ({"content": None}, {"content": "text"}, {}):
            turn = {"role": "assistant", **content, **call}
            row: dict[str, object] = {"messages": [{"role": "user", "content": "q"}, turn]}
            turns, flag = to_conversation(row)
            assert flag == schema.TOOL_TURN
            assert turns[1] == Turn("assistant", content.get("content") or "")
            assert turns[2].role in call


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({}, schema.UNKNOWN_FORMAT, "keys: none"),
        ({"text": "SECRET"}, schema.UNKNOWN_FORMAT, "keys: text"),
        ({"q": 1, "SECRET text": 2}, schema.UNKNOWN_FORMAT, "keys: q and 1 more"),
        ({"\ud800": 1}, schema.UNKNOWN_FORMAT, "keys: none and 1 more"),
        ({"prompt": "SECRET"}, schema.MISSING_FIELD, "prompt, but no response or completion"),
        ({"response": "SECRET"}, schema.MISSING_FIELD, "response, but no instruction or prompt"),
        ({"messages": None}, schema.WRONG_TYPE, "messages: null, expected a list of turns"),
        ({"messages": {}}, schema.WRONG_TYPE, "messages: an object, expected a list of turns"),
        ({"messages": ["SECRET"]}, schema.WRONG_TYPE, "messages[0]: text, expected an object"),
        ({"messages": [{}]}, schema.MISSING_FIELD, "messages[0]: no role or from"),
        (
            {"messages": [{"from": 1, "value": "SECRET"}]},
            schema.WRONG_TYPE,
            "messages[0].from: a number, expected text",
        ),
        (
            {"messages": [{"role": "user", "content": {"SECRET": 1}}]},
            schema.WRONG_TYPE,
            "messages[0].content: an object, expected text",
        ),
        (chat(("the SECRET one", "")), schema.UNKNOWN_ROLE, "messages[0].role: a name not shown"),
        (chat(("input", "x")), schema.UNKNOWN_ROLE, "messages[0].role: input"),
        (
            {"instruction": None, "output": "SECRET"},
            schema.WRONG_TYPE,
            "instruction: null, expected text",
        ),
        (
            {"instruction": "SECRET", "output": True},
            schema.WRONG_TYPE,
            "output: true or false, expected text",
        ),
        (
            {"instruction": "SECRET", "input": 1, "output": "a"},
            schema.WRONG_TYPE,
            "input: a number, expected text",
        ),
        (
            {"system": ["SECRET"], "prompt": "p", "response": "r"},
            schema.WRONG_TYPE,
            "system: a list, expected text",
        ),
        ({"prompt": "é\udc00", "response": "r"}, schema.LONE_SURROGATE, "turn 0, character 1"),
        (chat(("tool\ud800", "x")), schema.LONE_SURROGATE, "turn 0, character 4"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "alt": "\ud800"}]}]},
            schema.LONE_SURROGATE,
            "turn 0, character 9",
        ),
    ],
)
def test_rejections_name_the_place_and_never_the_text(
    row: dict[str, object], reason: str, detail: str
) -> None:
    found = rejection(row)
    assert found == (reason, detail)
    assert "SECRET" not in found[1]


def test_surrogates_outside_the_turns_do_not_matter() -> None:
    assert to_conversation({"prompt": "p", "response": "r", "id": "\ud800"})[1] == schema.OK


def test_content_nested_too_deeply_is_rejected() -> None:
    content: list[object] = []
    for _ in range(5000):
        content = [content]
    row: dict[str, object] = {"messages": [{"role": "user", "content": content}]}
    assert rejection(row) == (schema.WRONG_TYPE, "messages[0]: nested too deeply")


def test_row_error_survives_pickling() -> None:
    # Which copying does the same way; Ray's workers hand errors over pickled.
    error = copy.copy(RowError(schema.WRONG_TYPE, "no output"))
    assert (error.reason, error.detail, str(error)) == (
        schema.WRONG_TYPE,
        "no output",
        "wrong_type: no output",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("messages", "instruction", "input", "output", "role", "from", "content", "tool_calls")


turn_lists = st.lists(
    st.dictionaries(
        st.sampled_from(KEYS), json_values | st.sampled_from(["user", "gpt", "tool"]), max_size=4
    ),
    max_size=4,
)


# The first text of all builds Hypothesis's table of characters: slow once, and no fault.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), json_values | turn_lists, max_size=5))
def test_any_row_is_a_conversation_or_a_row_error(row: dict[str, object]) -> None:
    try:
        turns, code = to_conversation(row)
    except RowError as error:
        turns, code = (), error.reason
    assert code in (schema.FLAGS if turns else schema.REJECT_REASONS)
    assert len(row_id(turns)) == 32


def test_json_text() -> None:
    value = {"b": [float("inf"), {"c": float("nan")}, 1.5], "a": "é\n"}
    assert json_text(value) == '{"b":[null,{"c":null},1.5],"a":"é\\n"}'
    assert json_text({"b": 1, "a": 2}, sort_keys=True) == '{"a":2,"b":1}'
