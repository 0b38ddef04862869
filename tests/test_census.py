"""What the keys of a pool are good for: counts, bounds, and no name that is a text."""

from __future__ import annotations

import copy

import pytest

from engine.census import MAX_LISTED, MAX_NAMES, Census, Names, closest


def test_names_are_counted_and_texts_are_a_number() -> None:
    names = Names()
    for keys in (("id", "a text\x1b[31m"), ("id", "messages[].name"), ("\ud800", "x" * 50)):
        names.add(keys)
    assert names.listed() == {"id": 2, "messages[].name": 1}
    assert (names.others, names.num_unlisted) == (3, 3)
    assert names.shown("rows") == "id (2 rows), messages[].name (1), names not shown (3)"


def test_a_key_in_every_row_takes_no_memory_without_end() -> None:
    names = Names()
    for i in range(3 * MAX_NAMES):
        names.add((f"k{i}", "id"))
    assert len(names.counts) <= MAX_NAMES
    listed = names.listed()
    assert len(listed) == MAX_LISTED
    assert next(iter(listed.items())) == ("id", 3 * MAX_NAMES)
    assert sum(listed.values()) + names.num_unlisted == 6 * MAX_NAMES
    assert names.shown("rows").startswith("id (6,000 rows), k0 (1), k1 (1), k10 (1), ")
    assert names.shown("rows").endswith(f"{MAX_NAMES - 8:,} names more, names not shown (4,001)")


def test_parts_add_up_however_they_are_cut() -> None:
    rows = [("id", "b"), ("id",), ("a", "no name"), ("b",)]
    whole = Census()
    for keys in rows:
        whole.unused.add(keys)
    for cut in range(5):
        parts = [Census(), Census()]
        for place, keys in enumerate(rows):
            parts[place >= cut].unused.add(keys)
        total = Census()
        for part in copy.deepcopy(parts):
            total.merge(part)
        assert total.unused.listed() == whole.unused.listed() == {"b": 2, "id": 2, "a": 1}
        assert total.unused.num_unlisted == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"dialog": [{"speaker": "a", "says": "b"}], "id": 1}],
            "under 'dialog' (each with says, speaker): --set pool.fields.turns=dialog",
        ),
        (
            [{"Instruction": "q", "outputs": "a"}],
            "pool.fields.prompt=Instruction --set pool.fields.response=outputs",
        ),
        (
            [
                {
                    "log_history": [{"role": "user", "text": "q"}],
                    "tools": [{"name": "n", "text": "t"}],
                }
            ],
            "the rows have the keys log_history, tools: name them",
        ),
        ([{"answers": [{"text": "q", "score": 1}]}], "the rows have the keys answers: name them"),
        ([{"text": "q"}], "the rows have the keys text: name them with --set pool.fields.prompt=…"),
        ([{"text": None}, {"SECRET text": 1}], "name them with --set pool.fields.prompt=…"),
    ],
)
def test_hint_names_the_setting(rows: list[dict[str, object]], said: str) -> None:
    census = Census()
    for row in rows:
        census.add_rejected(row)
    hint = census.fields_hint()
    assert said in hint
    assert "pool.fields.turns=" in hint
    assert "SECRET" not in hint


def test_what_half_of_the_rows_share_is_a_name() -> None:
    names = Names()
    for row in range(4):
        names.add(("Customer question", "客户", f"text {row}", *(["rare key"] if not row else [])))
    names.reveal(4)
    assert names.listed() == {"Customer question": 4, "客户": 4}
    assert (names.others, names.num_unlisted) == (5, 5)
    few = Names()
    few.add(("SECRET text",))
    few.reveal(1)
    assert (few.listed(), few.others) == ({}, 1)
    long = Names()
    long.add(("x" * 30 + "\x1b[31m" + "y" * 30,), 3)
    long.reveal(3)
    (shown,) = long.listed()
    assert "\x1b" not in shown
    assert len(shown) == 41


def test_a_hint_quotes_names_with_spaces() -> None:
    census = Census()
    for _ in range(3):
        census.add_rejected({"Prompt text": "q", "Response": "a"})
    census.reveal(0, 3)
    hint = census.fields_hint()
    assert "the rows have the keys Prompt text, Response" in hint
    assert "pool.fields.response=Response" in hint


def test_closest() -> None:
    assert closest(["meta.source", "id"], ["meta.sorce"]) == "meta.source"
    assert closest(["Prompt"], ["prompt"]) == "Prompt"
    assert closest(["id", "text"], ["instruction"]) is None
