"""Conversations to tokens: exact texts, exact ids, and which positions are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AddedToken,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from engine import schema
from engine.assets import FOLDER
from engine.chat.template import ChatTemplate, as_messages
from engine.encoding import BATCH_ROWS, Conversation, Encoded, as_turns
from engine.models import ModelSource
from engine.text import AlpacaTemplate, make_template, render_alpaca

END = "</s>"
END_ID = 2  # BOS as well, in this tokenizer

COLOUR: list[tuple[str, str]] = [("user", "Name a colour."), ("assistant", "Blue.")]
SUM: list[tuple[str, str]] = [("user", "Add."), ("input", "1 and 2"), ("assistant", " 3 (größer).")]
TWO_TURNS: list[tuple[str, str]] = [*COLOUR, ("user", "Another."), ("assistant", "Red.")]


def load(chat_template: str | None = None, special: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """The bundled byte-level tokenizer, with end-of-turn tokens and a chat template if need be."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "nano-opt")
    if special:
        tokenizer.add_tokens([AddedToken(s, special=True) for s in special], special_tokens=True)
    tokenizer.chat_template = chat_template
    return tokenizer


BUNDLED = load()


def encode(template: AlpacaTemplate | ChatTemplate, turns: Conversation) -> Encoded:
    (encoded,) = template.encode([turns])
    return encoded


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def scored_text(tokenizer: Any, row: Encoded) -> str:
    return text_of(tokenizer, row.input_ids[row.scored])


# ── the Alpaca template ──────────────────────────────────────────────────────────────────────────


def test_alpaca_text_without_input() -> None:
    rendered = render_alpaca(COLOUR, END)
    assert rendered.text == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n"
        "### Instruction:\nName a colour.\n\n### Response:Blue.</s>"
    )
    assert [rendered.text[a:b] for a, b in rendered.responses] == ["Blue.</s>"]


def test_alpaca_text_with_input() -> None:
    rendered = render_alpaca(SUM, END)
    assert rendered.text == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response: 3 (größer).</s>"
    )
    assert [rendered.text[a:b] for a, b in rendered.responses] == [" 3 (größer).</s>"]


def test_an_empty_input_is_none() -> None:
    empty = [("user", "Name a colour."), ("input", ""), ("assistant", "Blue.")]
    assert render_alpaca(empty, END) == render_alpaca(COLOUR, END)


def test_alpaca_text_of_several_turns_repeats_the_blocks() -> None:
    turns = [
        ("system", "Be brief."),
        *COLOUR,
        ("user", "Mix it."),
        ("input", "with red"),
        ("assistant", "Violet."),
    ]
    rendered = render_alpaca(turns, END)
    assert rendered.text == (
        "Be brief.\n\n"
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n"
        "### Instruction:\nName a colour.\n\n### Response:Blue.</s>\n\n"
        "### Instruction:\nMix it.\n\n### Input:\nwith red\n\n### Response:Violet.</s>"
    )
    assert [rendered.text[a:b] for a, b in rendered.responses] == ["Blue.</s>", "Violet.</s>"]


def test_an_input_behind_a_system_turn_is_still_the_first_ones() -> None:
    rendered = render_alpaca([("system", "Be brief."), *SUM], END)
    assert rendered.text.startswith("Be brief.\n\nBelow is an instruction that describes a task, p")


# fmt: off
INTRO_IDS = [37, 486, 323, 314, 282, 981, 2783, 327, 4673, 261, 3934]
REQUEST_IDS = [17, 412, 5693, 261, 2133, 327, 3367, 2701, 1109, 5862, 264, 7726, 17, 202, 202]
INSTRUCTION_IDS = [6, 6, 6, 3804, 2783, 29, 202]
RESPONSE_IDS = [202, 202, 6, 6, 6, 453, 1596, 2029, 29]
COLOUR_IDS = [END_ID, *INTRO_IDS, *REQUEST_IDS, *INSTRUCTION_IDS, 49, 613, 261, 722, 470, 17,
              *RESPONSE_IDS, 4801, 590, 17, END_ID]
SUM_IDS = [END_ID, *INTRO_IDS, 15, 279, 6930, 365, 282, 4396, 327, 2563, 2354, 3870, *REQUEST_IDS,
           *INSTRUCTION_IDS, 6939, 17, 202, 202, 6, 6, 6, 515, 1736, 29, 202, 20, 294, 449,
           *RESPONSE_IDS, 868, 362, 74, 85, 131, 118, 131, 257, 267, 556, END_ID]
# fmt: on


@pytest.mark.parametrize(
    ("turns", "ids", "num_scored", "response"),
    [(COLOUR, COLOUR_IDS, 4, "Blue."), (SUM, SUM_IDS, 11, " 3 (größer).")],
)
def test_alpaca_tokens_are_exactly_these(
    turns: list[tuple[str, str]], ids: list[int], num_scored: int, response: str
) -> None:
    row = encode(AlpacaTemplate(BUNDLED, 512), turns)
    assert row.input_ids.tolist() == ids
    assert row.scored.tolist() == list(range(len(ids) - num_scored, len(ids)))
    assert scored_text(BUNDLED, row) == response + END
    assert (row.flag, row.end_scored, row.truncated) == ("ok", True, False)


def test_alpaca_scores_every_response_with_its_end() -> None:
    row = encode(AlpacaTemplate(BUNDLED, 512), TWO_TURNS)
    assert scored_text(BUNDLED, row) == "Blue.</s>Red.</s>"
    assert text_of(BUNDLED, row.input_ids) == END + render_alpaca(TWO_TURNS, END).text
    # One BOS and two ends share an id; only the ends are scored.
    places = [i for i, token in enumerate(row.input_ids) if token == END_ID]
    assert (len(places), places[0]) == (3, 0)
    assert [place in row.scored for place in places] == [False, True, True]


def test_an_end_token_inside_the_prompt_is_not_scored() -> None:
    turns = [("user", f"What is {END} for?"), ("assistant", f"{END} ends.")]
    row = encode(AlpacaTemplate(BUNDLED, 512), turns)
    assert scored_text(BUNDLED, row) == "</s> ends.</s>"
    assert row.input_ids.tolist().count(END_ID) == 4


@pytest.mark.parametrize("trailing", [[("user", "And?")], [("user", "And?"), ("input", "x")]])
def test_turns_behind_the_last_response_are_not_rendered(trailing: list[tuple[str, str]]) -> None:
    row = encode(AlpacaTemplate(BUNDLED, 512), [*COLOUR, *trailing])
    assert row.input_ids.tolist() == COLOUR_IDS


WORDS = st.text(
    st.one_of(st.sampled_from("  \n\t.,;'"), st.characters(categories=["L", "Nd"])), max_size=30
)


@settings(max_examples=50, deadline=None)
@given(
    exchanges=st.lists(
        st.tuples(WORDS, st.one_of(st.just(""), WORDS), WORDS.map(lambda text: f"a{text}")),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_scored_is_the_responses_and_nothing_else(
    exchanges: list[tuple[str, str, str]],
) -> None:
    turns: list[tuple[str, str]] = []
    for prompt, further, response in exchanges:
        turns += [("user", prompt), ("input", further), ("assistant", response)]
    row = encode(AlpacaTemplate(BUNDLED, 10_000), turns)
    assert scored_text(BUNDLED, row) == "".join(f"{response}{END}" for *_, response in exchanges)
    assert row.end_scored


def test_conversations_do_not_depend_on_their_neighbours() -> None:
    template = AlpacaTemplate(BUNDLED, 512)
    together = template.encode([COLOUR, TWO_TURNS, SUM])
    assert [row.input_ids.tolist() for row in together] == [
        encode(template, turns).input_ids.tolist() for turns in (COLOUR, TWO_TURNS, SUM)
    ]
    assert template.encode([]) == []


def test_more_conversations_than_one_batch_keep_their_order() -> None:
    short, long = COLOUR_IDS, SUM_IDS
    rows = AlpacaTemplate(BUNDLED, 512).encode([COLOUR] * BATCH_ROWS + [SUM, COLOUR])
    assert [row.input_ids.tolist() for row in rows] == [short] * BATCH_ROWS + [long, short]


# ── the rule, against a plain loop over every token's offsets ────────────────────────────────────


def wordpiece() -> PreTrainedTokenizerBase:
    """all-MiniLM's: lower case, white space dropped, cut and padded unless told not to."""
    tokenizer = AutoTokenizer.from_pretrained(ModelSource("embed.model", "bundled").folder())
    tokenizer.eos_token = "[SEP]"
    return tokenizer


def unigram() -> PreTrainedTokenizerBase:
    """As SentencePiece makes them: NFKC, a space in front, unknown characters as bytes."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "\u2581",
        "\u2581the",
        "re",
        "sp",
        "on",
        "se",
        *"ainstruc:#\n",
    ]
    vocabulary = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    vocabulary += [(f"<0x{byte:02X}>", -50.0) for byte in range(256)]
    backend: Any = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Prepend("\u2581")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


KINDS = {"byte-level": BUNDLED, "wordpiece": wordpiece(), "unigram": unigram()}
# An emoji of four code points, combining marks, what NFKC makes longer, wide and zero-width spaces.
ODD = st.sampled_from(
    [
        "👩\u200d🔧",
        "e\u0301",
        "\u0301",
        "\ufb03",
        "½",
        "\u3000",
        "\u200b",
        " \n ",
        END,
        "[SEP]",
        "字",
    ]
)
PARTS = st.lists(st.one_of(ODD, st.text(max_size=5)), max_size=5).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(exchanges=st.lists(st.tuples(PARTS, PARTS, PARTS), min_size=1, max_size=3))
def test_scored_are_the_tokens_that_start_inside_a_response(
    kind: str, exchanges: list[tuple[str, str, str]]
) -> None:
    tokenizer = KINDS[kind]
    turns: list[tuple[str, str]] = []
    for prompt, further, response in exchanges:
        turns += [("user", prompt), ("input", further), ("assistant", response)]
    # Ours first: the plain call turns off the truncation and padding that a tokenizer came with.
    row = encode(AlpacaTemplate(tokenizer, 10_000), turns)
    one = render_alpaca(turns, str(tokenizer.eos_token))
    made = tokenizer(one.text, return_offsets_mapping=True)
    ids, spans = list(made["input_ids"]), list(made["offset_mapping"])
    while spans and spans[-1][1] == 0:  # special tokens that the tokenizer puts behind the text
        ids.pop()
        spans.pop()
    expected = [
        place
        for place, (start, end) in enumerate(spans)
        if end > 0 and any(first <= start < last for first, last in one.responses)
    ]
    assert row.input_ids.tolist() == ids
    assert row.scored.tolist() == expected


# ── BOS and EOS that the tokenizer adds, or does not ─────────────────────────────────────────────


@pytest.mark.parametrize(
    ("added", "before"),
    [("</s> $A </s>", [END_ID]), ("$A </s>", []), ("$A", []), ("<s> $A </s>", [0])],
)
def test_one_bos_and_one_scored_end_whatever_the_tokenizer_adds(
    added: str, before: list[int]
) -> None:
    tokenizer = load()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=added, special_tokens=[("<s>", 0), ("</s>", END_ID)]
    )
    row = encode(AlpacaTemplate(tokenizer, 512), COLOUR)
    assert row.input_ids.tolist() == before + COLOUR_IDS[1:]
    assert scored_text(tokenizer, row) == "Blue.</s>"
    assert row.end_scored
    several = encode(AlpacaTemplate(tokenizer, 512), TWO_TURNS)
    assert scored_text(tokenizer, several) == "Blue.</s>Red.</s>"


# ── the context's end ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("beyond", "scored", "end_scored", "truncated", "flag"),
    [
        (1, "Blue.</s>", True, False, "ok"),
        (0, "Blue.</s>", True, False, "ok"),  # fits exactly
        (-1, "Blue.", False, True, "ok"),
        (-3, "Bl", False, True, "ok"),
        (-4, "", False, True, "prompt_too_long"),
        (-20, "", False, True, "prompt_too_long"),
    ],
)
def test_a_row_is_cut_on_the_right(
    beyond: int, scored: str, end_scored: bool, truncated: bool, flag: str
) -> None:
    max_tokens = len(COLOUR_IDS) + beyond
    row = encode(AlpacaTemplate(BUNDLED, max_tokens), COLOUR)
    assert row.input_ids.tolist() == COLOUR_IDS[:max_tokens]
    assert scored_text(BUNDLED, row) == scored
    assert (row.end_scored, row.truncated, row.flag) == (end_scored, truncated, flag)


def test_a_conversation_cut_behind_its_first_response_has_no_end_scored() -> None:
    whole = encode(AlpacaTemplate(BUNDLED, 512), TWO_TURNS)
    first_end = int(whole.scored[3])
    row = encode(AlpacaTemplate(BUNDLED, first_end + 1), TWO_TURNS)
    assert scored_text(BUNDLED, row) == "Blue.</s>"  # an end token, but not the last one
    assert (row.end_scored, row.truncated, row.flag) == (False, True, "ok")


# ── chat templates ─────────────────────────────────────────────────────────────────────────────

CHATML_SPECIAL = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_SPECIAL = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>"
    "\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHAT: list[tuple[str, str]] = [("system", "Be brief."), *TWO_TURNS]


def chat(chat_template: str, special: Sequence[str] = (), max_tokens: int = 512) -> ChatTemplate:
    template = make_template("chat", load(chat_template, special), max_tokens)
    assert isinstance(template, ChatTemplate)
    return template


def test_chatml_scores_contents_and_their_end_tokens() -> None:
    template = chat(CHATML, CHATML_SPECIAL)
    row = encode(template, CHAT)
    assert text_of(template.tokenizer, row.input_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nName a colour.<|im_end|>\n"
        "<|im_start|>assistant\nBlue.<|im_end|>\n"
        "<|im_start|>user\nAnother.<|im_end|>\n"
        "<|im_start|>assistant\nRed.<|im_end|>"  # the newline behind it is left out
    )
    assert scored_text(template.tokenizer, row) == "Blue.<|im_end|>Red.<|im_end|>"
    newline, end = (template.tokenizer.convert_tokens_to_ids(t) for t in ("Ċ", "<|im_end|>"))
    assert newline not in row.input_ids[row.scored]
    assert row.input_ids[-1] == end
    assert (row.flag, row.end_scored, row.truncated) == ("ok", True, False)


def test_chatml_is_cut_on_the_right_too() -> None:
    num_tokens = len(encode(chat(CHATML, CHATML_SPECIAL), COLOUR).input_ids)
    exact = encode(chat(CHATML, CHATML_SPECIAL, num_tokens), COLOUR)
    assert (exact.end_scored, exact.truncated) == (True, False)
    template = chat(CHATML, CHATML_SPECIAL, num_tokens - 1)
    cut = encode(template, COLOUR)
    assert scored_text(template.tokenizer, cut) == "Blue."
    assert (cut.end_scored, cut.truncated, cut.flag) == (False, True, "ok")
    none = encode(chat(CHATML, CHATML_SPECIAL, num_tokens - 4), COLOUR)
    assert (len(none.scored), none.flag) == (0, schema.PROMPT_TOO_LONG)


def test_llama_headers_with_trimmed_contents() -> None:
    template = chat(LLAMA, LLAMA_SPECIAL)
    row = encode(template, [("user", "Name a colour. "), ("assistant", "\n Blue.  ")])
    assert text_of(template.tokenizer, row.input_ids) == (
        "</s><|start_header_id|>user<|end_header_id|>\n\nName a colour.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nBlue.<|eot_id|>"
    )
    assert scored_text(template.tokenizer, row) == "Blue.<|eot_id|>"
    # The template's own BOS, and no second one from the tokenizer, which adds one by itself.
    assert template.tokenizer("x")["input_ids"][0] == END_ID
    assert [i for i, token in enumerate(row.input_ids) if token == END_ID] == [0]
    assert row.end_scored


def test_bos_and_eos_of_one_id_are_told_apart_by_place() -> None:
    template = chat(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[user] ' }}{% endif %}"
        "{{ m.content + (eos_token if m.role == 'assistant' else '\n') }}{% endfor %}"
    )
    row = encode(template, TWO_TURNS)
    assert text_of(template.tokenizer, row.input_ids) == (
        "</s>[user] Name a colour.\nBlue.</s>[user] Another.\nRed.</s>"  # its EOS is not doubled
    )
    assert scored_text(template.tokenizer, row) == "Blue.</s>Red.</s>"
    assert 0 not in row.scored
    assert row.end_scored


@pytest.mark.parametrize(
    ("end", "scored"),
    [
        ("", "Blue.Red.</s>"),
        ("\n", "Blue.Red.</s>"),  # white space ends no turn
        (" |", "Blue.|Red.|"),  # what stands behind every response does
        ("\n[END]\n", "Blue.[END]Red.[END]"),
    ],
)
def test_a_template_without_an_end_token_gets_eos(end: str, scored: str) -> None:
    template = chat(
        "{% for m in messages %}{% if m.role == 'user' %}{{ '\nQ:' + m.content + '\nA:' }}"
        "{% else %}{{ m.content + '" + end.replace("\n", "\\n") + "' }}{% endif %}{% endfor %}"
    )
    row = encode(template, TWO_TURNS)
    assert scored_text(template.tokenizer, row) == scored
    assert (row.input_ids[-1] == END_ID) == scored.endswith(END)
    assert row.end_scored


@pytest.mark.parametrize(
    ("header", "scored"),
    [(": ", " Blue."), (":  ", " Blue."), (":", "Blue."), (": (", "Blue.")],
)
def test_a_first_word_is_scored_with_the_space_before_it(header: str, scored: str) -> None:
    template = chat(
        "{% for m in messages %}{{ m.role + '" + header + "' + m.content + '\n' }}{% endfor %}"
    )
    row = encode(template, COLOUR)
    assert scored_text(template.tokenizer, row) == scored + END


def test_a_token_that_begins_with_text_of_the_prompt_is_not_scored() -> None:
    template = chat("{% for m in messages %}{{ m.role + ':Nam' + m.content }}{% endfor %}")
    row = encode(template, [("user", "Say."), ("assistant", "e a colour.")])
    tokens = [text_of(template.tokenizer, [i]) for i in row.input_ids]
    assert tokens[-6:] == ["ame", " a", " col", "our", ".", END]
    assert scored_text(template.tokenizer, row) == " a colour.</s>"


def test_a_trailing_user_turn_is_not_rendered_in_chats_either() -> None:
    template = chat(CHATML, CHATML_SPECIAL)
    row = encode(template, [*CHAT, ("user", "And?")])
    assert row.input_ids.tolist() == encode(template, CHAT).input_ids.tolist()


def test_an_input_joins_the_user_turn() -> None:
    turns = [("system", "s"), ("user", "q"), ("input", "more"), ("assistant", "a")]
    assert as_messages(as_turns(turns)) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q\n\nmore"},
        {"role": "assistant", "content": "a"},
    ]
    empty = as_messages(as_turns([("user", "q"), ("input", ""), ("assistant", "a")]))
    assert empty[0] == {"role": "user", "content": "q"}
    template = chat(CHATML, CHATML_SPECIAL)
    text = text_of(template.tokenizer, encode(template, SUM).input_ids)
    assert "<|im_start|>user\nAdd.\n\n1 and 2<|im_end|>" in text


# ── chat templates that mark their responses ─────────────────────────────────────────────────────

MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{%- generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("turns", [COLOUR, SUM, CHAT, [*CHAT, ("user", "And?")]])
@pytest.mark.parametrize("max_tokens", [512, 48, 32, 24, 16])
def test_marked_templates_score_as_unmarked_ones_do(
    turns: list[tuple[str, str]], max_tokens: int
) -> None:
    marked = chat(MARKED, CHATML_SPECIAL, max_tokens)
    assert marked.renderer.marks_responses
    found, expected = (
        encode(template, turns) for template in (marked, chat(CHATML, CHATML_SPECIAL, max_tokens))
    )
    assert found.input_ids.tolist() == expected.input_ids.tolist()
    assert found.scored.tolist() == expected.scored.tolist()
    assert (found.flag, found.end_scored, found.truncated) == (
        expected.flag,
        expected.end_scored,
        expected.truncated,
    )


def test_marks_that_leave_the_end_token_out_leave_it_unscored() -> None:
    template = chat(
        MARKED.replace(
            "m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n'",
            "m.content }}{% endgeneration %}{{ '<|im_end|>\n'",
        ),
        CHATML_SPECIAL,
    )
    row = encode(template, TWO_TURNS)
    assert scored_text(template.tokenizer, row) == "Blue.Red."
    assert (row.end_scored, row.flag) == (False, "ok")


# ── chat templates that cannot be used ───────────────────────────────────────────────────────────

FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING: list[tuple[str, str]] = [("user", "Why?"), ("assistant", "<think>Hm.</think>So.")]
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    + CHATML
)


def assert_flagged(row: Encoded, flag: str) -> None:
    assert (row.flag, row.end_scored, row.truncated) == (flag, False, False)
    assert (row.input_ids.tolist(), row.scored.tolist()) == ([], [])


def test_earlier_thoughts_that_a_template_drops_are_not_scored() -> None:
    template = chat(FORGETFUL, CHATML_SPECIAL)
    row = encode(template, [*THINKING, ("user", "Sure?"), ("assistant", "Yes.")])
    assert scored_text(template.tokenizer, row) == "So.<|im_end|>Yes.<|im_end|>"
    single, plain = encode(template, THINKING), encode(template, TWO_TURNS)
    assert scored_text(template.tokenizer, single) == "<think>Hm.</think>So.<|im_end|>"
    assert scored_text(template.tokenizer, plain) == "Blue.<|im_end|>Red.<|im_end|>"


def test_the_generation_prompt_plays_no_part() -> None:
    hinting = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
    template = chat(hinting, CHATML_SPECIAL)
    assert scored_text(template.tokenizer, encode(template, COLOUR)) == "Blue.<|im_end|>"


@pytest.mark.parametrize(
    "content",
    [
        "m.content | length",  # another text with every mark
        "m.content[::-1]",  # the marks come out the wrong way round
        "m.content + m.content",  # and here twice
        "'...'",  # not there at all
    ],
)
def test_a_response_changed_beyond_recognition_is_flagged(content: str) -> None:
    rewriting = CHATML.replace(
        "m.content +", f"(m.content if m.role == 'user' else {content})|string +"
    )
    row = encode(chat(rewriting, CHATML_SPECIAL), COLOUR)
    assert_flagged(row, schema.TEMPLATE_REWRITES)


@pytest.mark.parametrize("template", [NO_SYSTEM, NO_SYSTEM.replace(CHATML, MARKED)])
def test_a_conversation_that_the_template_refuses_is_flagged_alone(template: str) -> None:
    made = chat(template, CHATML_SPECIAL)
    first, refused, last = made.encode([COLOUR, CHAT, TWO_TURNS])
    assert_flagged(refused, schema.TEMPLATE_REFUSED)
    assert scored_text(made.tokenizer, first) == "Blue.<|im_end|>"
    assert scored_text(made.tokenizer, last) == "Blue.<|im_end|>Red.<|im_end|>"


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        make_template("chat", load(), 512)
