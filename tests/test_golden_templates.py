"""What is scored under the chat templates of published models, against values worked out by hand.

To see where the engine and the golden file differ, run this file:
``python tests/test_golden_templates.py`` prints each difference, template by template. Nothing
writes the golden file: a new value is worked out and typed in.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from engine.assets import FOLDER
from engine.chat.template import ChatTemplate, as_messages
from engine.encoding import Rendered
from engine.formats import Turn

GOLDEN = yaml.safe_load((Path(__file__).parent / "golden" / "templates.yaml").read_text("utf-8"))
DAY = datetime.date(2025, 3, 9)
CONVERSATIONS = {
    name: [Turn(**turn) for turn in turns] for name, turns in GOLDEN["conversations"].items()
}


@cache
def template_of(name: str, with_special: bool) -> ChatTemplate:
    """The template, its markers as special tokens or as ordinary text (BOS and EOS never are)."""
    golden = GOLDEN["templates"][name]
    tokenizer: Any = AutoTokenizer.from_pretrained(FOLDER / "nano-opt")
    if with_special and golden["special"]:
        tokens = [AddedToken(token, special=True) for token in golden["special"]]
        tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.eos_token = golden["eos"]
    if "bos" in golden:
        tokenizer.bos_token = golden["bos"]
    tokenizer.chat_template = golden["template"]
    return ChatTemplate(tokenizer, 10_000, date=DAY)


def expected(name: str, conversation: str) -> str:
    golden = GOLDEN["templates"][name]
    given = golden.get("scored", {}).get(conversation, GOLDEN["general"][conversation])
    return given if given.startswith("«") else given.replace("E", golden["end"])


def found(template: ChatTemplate, conversation: str) -> str:
    rendered = template.render(CONVERSATIONS[conversation])
    if not isinstance(rendered, Rendered):
        return f"«{rendered}»"
    return "".join(rendered.text[start:end] for start, end in rendered.responses)


CASES = [(name, conversation) for name in GOLDEN["templates"] for conversation in CONVERSATIONS]


def test_the_golden_file_holds_enough_and_no_case_twice() -> None:
    assert len(GOLDEN["templates"]) >= 15
    assert set(GOLDEN["general"]) == set(CONVERSATIONS)
    for golden in GOLDEN["templates"].values():
        assert set(golden.get("scored", {})) <= set(CONVERSATIONS)


@pytest.mark.parametrize("with_special", [True, False], ids=["special", "text"])
@pytest.mark.parametrize(("name", "conversation"), CASES)
def test_what_is_scored_is_what_the_golden_file_says(
    name: str, conversation: str, with_special: bool
) -> None:
    template = template_of(name, with_special)
    assert found(template, conversation) == expected(name, conversation)


@pytest.mark.parametrize("with_special", [True, False], ids=["special", "text"])
@pytest.mark.parametrize(("name", "conversation"), CASES)
def test_scored_tokens_are_the_spans(name: str, conversation: str, with_special: bool) -> None:
    template = template_of(name, with_special)
    (row,) = template.encode([CONVERSATIONS[conversation]])
    wanted = expected(name, conversation)
    if wanted.startswith("«"):
        assert f"«{row.flag}»" == wanted
        return
    decode: Any = template.tokenizer.decode
    text = decode(
        row.input_ids[row.scored], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    # A space of the template may be one token with the word behind it.
    assert "".join(text.split()) == "".join(wanted.split())
    assert (row.flag, row.end_scored) == ("ok", True)
    assert row.scored[-1] == len(row.input_ids) - 1  # nothing behind the last end token


@pytest.mark.parametrize("name", GOLDEN["templates"])
def test_the_text_is_what_transformers_makes_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Fixed:
            return cls(DAY.year, DAY.month, DAY.day)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Fixed)
    template = template_of(name, True)
    tokenizer: PreTrainedTokenizerBase = template.tokenizer
    for turns in CONVERSATIONS.values():
        rendered = template.render(turns)
        if not isinstance(rendered, Rendered):
            continue
        kwargs = {"date_string": DAY.strftime("%d %b %Y")} if name == "llama3.1" else {}
        text = str(tokenizer.apply_chat_template(as_messages(turns), tokenize=False, **kwargs))
        end = str(tokenizer.eos_token)
        assert text.startswith((rendered.text, rendered.text.removesuffix(end)))


def differences() -> Iterator[str]:
    for name, conversation in CASES:
        for with_special in (True, False):
            now = found(template_of(name, with_special), conversation)
            golden = expected(name, conversation)
            if now != golden:
                kind = "special tokens" if with_special else "text"
                yield f"{name}, {conversation}, markers as {kind}:"
                yield f"  now    {now!r}\n  golden {golden!r}"


if __name__ == "__main__":
    print("\n".join(differences()) or "no difference")
