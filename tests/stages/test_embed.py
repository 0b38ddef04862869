"""The paper's text of a row, and embeddings that stand where their rows do."""

from __future__ import annotations

from engine.stages.embed import text_of


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_single_turn_text_is_the_papers() -> None:
    row = turns(("user", " Add. "), ("input", "1 and 2\n"), ("assistant", " 3 "))
    assert text_of(row) == "Instruction: Add. 1 and 2 Response: 3"
    assert text_of(turns(("user", "Hi"), ("assistant", "Ho"))) == "Instruction: Hi Response: Ho"


def test_longer_conversations_give_first_prompt_and_first_response() -> None:
    row = turns(
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
    )
    assert text_of(row) == "Instruction: one Response: two"
