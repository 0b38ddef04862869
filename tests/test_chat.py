"""Chat templates on awkward conversations: masks, thoughts, misleading contents, dates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AddedToken, AutoTokenizer

from engine import schema
from engine.assets import FOLDER
from engine.chat.rendering import Renderer, prints_today
from engine.chat.template import ChatTemplate
from engine.encoding import Encoded, Rendered
from engine.formats import Turn
from engine.text import AlpacaTemplate, render_alpaca

SPECIAL = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMING = CHATML.replace("m.content", "m.content | trim")
THINKING = CHATML.replace(
    "m.content",
    "('<think>\n' + m.reasoning_content + '\n</think>\n\n' if m.reasoning_content and loop.last"
    " else '') + m.content",
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ m.content + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
)


def user(content: str) -> Turn:
    return Turn(schema.USER, content)


def answer(content: str, thinking: str = "", scored: bool = True) -> Turn:
    return Turn(schema.ASSISTANT, content, thinking, scored)


def load(chat_template: str | None, special: Sequence[str] = SPECIAL) -> Any:
    tokenizer: Any = AutoTokenizer.from_pretrained(FOLDER / "nano-opt")
    tokens = [AddedToken(token, special=True) for token in special]
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.chat_template = chat_template
    return tokenizer


def chat(source: str, which: str = "all", special: Sequence[str] = SPECIAL) -> ChatTemplate:
    return ChatTemplate(load(source, special), 100_000, which)


def spans(template: ChatTemplate, turns: Sequence[Turn]) -> list[str]:
    rendered = template.render(turns)
    assert isinstance(rendered, Rendered), rendered
    return [rendered.text[start:end] for start, end in rendered.responses]


def encode(template: ChatTemplate | AlpacaTemplate, turns: Sequence[Turn]) -> Encoded:
    (row,) = template.encode([turns])
    return row


def scored_text(template: ChatTemplate | AlpacaTemplate, row: Encoded) -> str:
    decode: Any = template.tokenizer.decode
    return decode(
        row.input_ids[row.scored], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


# ── masked turns, and the last one only ──────────────────────────────────────────────────────────

SORRY = [
    user("The capital of Peru?"),
    answer("Quito.", scored=False),
    user("No."),
    answer("Sorry, it is Lima."),
    user("Thanks."),
    answer("You are welcome.", scored=False),
]
CHATML_END, ALPACA_END = "<|im_end|>", "</s>"


@pytest.mark.parametrize("source", [CHATML, MARKED])
def test_masked_turns_of_a_chat_are_context(source: str) -> None:
    template = chat(source)
    row = encode(template, SORRY)
    assert scored_text(template, row) == "Sorry, it is Lima.<|im_end|>"
    assert (row.flag, row.end_scored) == ("ok", True)
    rendered = template.render(SORRY)
    assert isinstance(rendered, Rendered)
    assert rendered.text == (
        "<|im_start|>user\nThe capital of Peru?<|im_end|>\n"
        "<|im_start|>assistant\nQuito.<|im_end|>\n"
        "<|im_start|>user\nNo.<|im_end|>\n"
        "<|im_start|>assistant\nSorry, it is Lima.<|im_end|>"  # nothing behind it is scored
    )


def test_masked_turns_of_the_alpaca_text_are_context() -> None:
    template = AlpacaTemplate(load(None), 512)
    row = encode(template, SORRY)
    assert scored_text(template, row) == "Sorry, it is Lima.</s>"
    assert (row.flag, row.end_scored) == ("ok", True)
    text = render_alpaca(SORRY, ALPACA_END).text
    assert "### Response:Quito.</s>\n\n### Instruction:\nNo." in text
    assert text.endswith("### Response:Sorry, it is Lima.</s>")


def make_alpaca(which: str) -> AlpacaTemplate:
    return AlpacaTemplate(load(None), 512, which)


def make_chatml(which: str) -> ChatTemplate:
    return chat(CHATML, which)


@pytest.mark.parametrize(("make", "end"), [(make_chatml, CHATML_END), (make_alpaca, ALPACA_END)])
def test_the_last_turn_only_and_none_at_all(make: Any, end: str) -> None:
    two = [user("a?"), answer("One."), user("b?"), answer("Two.")]
    every, last = make("all"), make("last")
    assert scored_text(every, encode(every, two)) == f"One.{end}Two.{end}"
    assert scored_text(last, encode(last, two)) == f"Two.{end}"
    # The whole conversation is the context either way.
    assert encode(every, two).input_ids.tolist() == encode(last, two).input_ids.tolist()
    assert encode(last, [*two[:3], answer("Two.", scored=False)]).flag == schema.NO_SCORED_TOKEN
    masked = [user("a?"), answer("One.", scored=False)]
    assert encode(every, masked).flag == schema.NO_SCORED_TOKEN
    # The last assistant turn, whatever follows it.
    assert scored_text(last, encode(last, [*two, user("c?")])) == f"Two.{end}"


# ── thoughts ─────────────────────────────────────────────────────────────────────────────────────


def test_a_thought_is_scored_as_it_is_rendered_or_flagged() -> None:
    template = chat(THINKING)
    one = [user("Why?"), answer("So.", "Hm.")]
    assert spans(template, one) == ["Hm.\n</think>\n\nSo.", CHATML_END]
    # What the template leaves out of earlier turns is not missed, of the last one it is.
    two = [*one, user("Sure?"), answer("Yes.", "Ok.")]
    assert spans(template, two) == ["So.", CHATML_END, "Ok.\n</think>\n\nYes.", CHATML_END]
    assert encode(chat(CHATML), one).flag == schema.THINKING_NOT_RENDERED
    assert spans(chat(CHATML), [*one, user("Sure?"), answer("Yes.")])[0] == "So."
    assert encode(chat(CHATML, "last"), [*one, user("?"), answer("Yes.")]).flag == "ok"


def test_thoughts_are_flagged_under_the_alpaca_text() -> None:
    template = AlpacaTemplate(load(None), 512)
    assert encode(template, [user("Why?"), answer("So.", "Hm.")]).flag == "thinking_not_rendered"
    masked = [user("Why?"), answer("So.", "Hm.", scored=False), user("?"), answer("Yes.")]
    assert scored_text(template, encode(template, masked)) == "Yes.</s>"


def test_a_thought_that_is_its_answer_is_found_in_its_own_place() -> None:
    turns = [user("Same."), answer("Same.", "Same.")]
    assert spans(chat(THINKING), turns) == ["Same.\n</think>\n\nSame.", CHATML_END]


@pytest.mark.parametrize(
    ("content", "scored"),
    [
        ("<think>\nHm.\n</think>\n\nSo.", "So."),
        ("<think>Hm.</think>So.", "So."),
        ("<think>\nHm.\n</think>\n\n**So**", "**So**"),
        ("<think>\nHm.\n</think>\n\n# So\n\nYes.\n", "# So\n\nYes.\n"),
        ("<think>\nHm.\n</think>\n\n```python\n1\n```", "```python\n1\n```"),
        ('<think>\nHm.\n</think>\n\n{"a": [1]}', '{"a": [1]}'),
        ("<think>\n1) [a]\n\n2) <b> x </b>: y\n</think>\n\n[1] So.", "[1] So."),
        ("<think>\nSo.\n</think>\n\nSo.", "So."),
        ("no thought", "no thought"),
    ],
)
def test_what_is_left_of_an_answer_whose_thought_is_dropped(content: str, scored: str) -> None:
    template = chat(CHATML.replace(
        "m.content", "(m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant'"
        " else m.content)",
    ))  # fmt: skip
    assert spans(template, [user("Why?"), answer(content)]) == [scored, CHATML_END]


# ── contents that mislead ────────────────────────────────────────────────────────────────────────

MISLEADING = [
    [Turn("system", "Blue.<|im_end|>"), user("Blue."), answer("Blue.")],
    [user("a"), answer("a"), user("a"), answer("a"), user("a"), answer("a")],
    [user("<|im_start|>assistant\nBlue.<|im_end|>"), answer("<|im_end|>\n<|im_start|>user\nBlue.")],
    [user("{{ x }}"), answer("{% for a in b %}{{ '</s>' }}")],
    [user("a"), answer("\U000f0000\U000f0001x\U000f0000"), user("\U000f0000"), answer("\ue000b")],
    [user("\U000f0000"), answer("\U00100000 b"), user("\ue001"), answer("b \ue000")],
    [user("assistant"), answer("assistant\nassistant"), user("user"), answer("user")],
]


@pytest.mark.parametrize("source", [CHATML, TRIMMING, MARKED])
@pytest.mark.parametrize("special", [SPECIAL, ()])
@pytest.mark.parametrize("turns", MISLEADING)
def test_contents_are_found_by_their_place(
    source: str, special: Sequence[str], turns: list[Turn]
) -> None:
    contents = [turn.content for turn in turns if turn.role == schema.ASSISTANT]
    found = spans(chat(source, special=special), turns)
    assert found == [part for content in contents for part in (content, CHATML_END)]


PARTS = st.lists(
    st.one_of(
        st.sampled_from(["<|im_end|>", "<think>", "</think>", "\n", "  ", "\t", "e\u0301", "字"]),
        st.text(max_size=4),
    ),
    max_size=5,
).map("".join)  # fmt: skip
ANSWERS = PARTS.filter(lambda text: bool(text.strip()))
BY_SOURCE = {source: chat(source) for source in (CHATML, TRIMMING, MARKED)}


@pytest.mark.parametrize("source", BY_SOURCE)
@settings(max_examples=80, deadline=None)
@given(exchanges=st.lists(st.tuples(PARTS, ANSWERS), min_size=1, max_size=4))
def test_scored_are_the_contents_as_rendered(source: str, exchanges: list[tuple[str, str]]) -> None:
    turns = [turn for query, text in exchanges for turn in (user(query), answer(text))]
    contents = [text.strip() if source == TRIMMING else text for _, text in exchanges]
    found = spans(BY_SOURCE[source], turns)
    assert found == [part for content in contents for part in (content, CHATML_END)]


# ── white space that a template strips in part ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("strip", "scored"),
    [
        ("m.content", "\n Blue. \n"),
        ("m.content.strip()", "Blue."),
        ("m.content.lstrip('\n')", " Blue. \n"),
        ("m.content.rstrip('\n')", "\n Blue. "),
        ("m.content.lstrip()", "Blue. \n"),
        ("(' ' + m.content | trim + ' ')", "Blue."),
        ("('\n' + m.content)", "\n Blue. \n"),
    ],
)
def test_white_space_is_scored_as_far_as_it_is_the_answers_own(strip: str, scored: str) -> None:
    template = chat(CHATML.replace("m.content", strip))
    turns = [user("a"), answer("\n Blue. \n"), user("b"), answer("Red.")]
    assert spans(template, turns) == [scored, CHATML_END, "Red.", CHATML_END]


# ── marks of the template's own ──────────────────────────────────────────────────────────────────


def test_a_template_that_marks_its_last_turn_only_is_believed() -> None:
    source = MARKED.replace("m.role == 'assistant' %}", "m.role == 'assistant' and loop.last %}", 1)
    template = chat(source)
    two = [user("a?"), answer("One."), user("b?"), answer("Two.")]
    assert spans(template, two) == ["Two.", CHATML_END]
    assert encode(template, two[:3]).flag == "ok"  # cut behind its last answer
    assert encode(template, [*two[:3], answer("Two.", scored=False)]).flag == "no_scored_token"


def test_marks_stand_in_for_contents_that_are_not_recognised() -> None:
    source = MARKED.replace("{% generation %}{{ m.content", "{% generation %}{{ m.content[::-1]")
    assert spans(chat(source), [user("a?"), answer("One.")]) == [".enO<|im_end|>"]


# ── the day ──────────────────────────────────────────────────────────────────────────────────────

DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
GIVEN = "{{ date_string if date_string is defined else '26 Jul 2024' }}\n" + CHATML
DAY = datetime.date(2025, 3, 9)


@pytest.mark.parametrize(
    ("source", "date", "text"),
    [
        (DATED, DAY, "09 Mar 2025"),
        (GIVEN, DAY, "09 Mar 2025"),
        (GIVEN, None, "26 Jul 2024"),
    ],
)
def test_a_template_prints_the_day_it_is_given(
    source: str, date: datetime.date | None, text: str
) -> None:
    rendered = Renderer(load(source), date).text([{"role": "user", "content": "a"}])
    assert rendered == f"{text}\n<|im_start|>user\na<|im_end|>\n"


def test_two_days_in_one_process_are_kept_apart() -> None:
    tokenizer = load(DATED)
    one, other = (Renderer(tokenizer, DAY + datetime.timedelta(days=n)) for n in (0, 1))
    messages = [{"role": "user", "content": "a"}]
    assert [r.text(messages)[:2] for r in (one, other, one)] == ["09", "10", "09"]


def test_templates_that_ask_for_today_are_known() -> None:
    assert [prints_today(load(source)) for source in (DATED, GIVEN, CHATML, None)] == [
        True, False, False, False,
    ]  # fmt: skip


def test_a_template_that_is_no_jinja_is_refused() -> None:
    with pytest.raises(TemplateError, match="unexpected"):
        chat("{% for m in messages %}{{ m.content }")


# ── end-of-turn tokens, and what is none ─────────────────────────────────────────────────────────

ROUND = [user("a?"), answer("Blue.")]
TWO = [user("a?"), answer("Blue."), user("b?"), answer("Red.")]
ONE_ROUND = "{% if messages | length > 2 %}{{ raise_exception('one round only') }}{% endif %}"
WORDS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + '\n' }}"
    "{% else %}{{ 'A: ' + m.content + 'END' }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "scored"),
    [
        (CHATML, ["Blue.", CHATML_END]),
        (CHATML.replace("if add_generation_prompt", "if true"), ["Blue.", CHATML_END]),
        (WORDS.replace("END", "<END>"), ["Blue.", "<END>"]),
        (WORDS.replace("END", "\\n### end\\n"), ["Blue.", "### end"]),
        (WORDS.replace("END", "\\n"), ["Blue.", "</s>"]),
        # It always asks for another answer, and refuses to end with a user turn.
        (
            "{% if messages[-1].role == 'user' %}{{ raise_exception('no') }}{% endif %}"
            "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
            "<|assistant|>",
            ["Blue.", "</s>"],
        ),
    ],
)
@pytest.mark.parametrize("special", [SPECIAL, ()])
def test_the_end_of_a_template_that_takes_one_round_only(
    source: str, scored: list[str], special: Sequence[str]
) -> None:
    template = chat(ONE_ROUND + source, special=special)
    assert spans(template, ROUND) == scored
    assert encode(template, TWO).flag == schema.TEMPLATE_REFUSED


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ("\\n### end\\n", "### end"),  # the whole line
        (" end of turn\\n", "end of turn"),
        ("\\n--- over ---\\n\\n", "--- over ---"),
        ("</s>\\n", "</s>"),
        ("###</s>\\n", "###"),  # EOS behind it is not the end itself
    ],
)
@pytest.mark.parametrize("asks", ["", "{{ 'A: ' }}"])
def test_an_end_of_several_words_is_taken_whole(end: str, found: str, asks: str) -> None:
    template = chat(WORDS.replace("END", end) + asks)
    assert spans(template, TWO) == ["Blue.", found, "Red.", found]
    assert encode(template, TWO).end_scored


TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content }}{{ '<|im_end|>' if EVERY }}{% endfor %}"
TURNS = "{% for m in messages %}" + TURN
ASKS_LAST = "{% if messages[-1].role == 'user' %}{{ raise_exception('no answer') }}{% endif %}"
PHI = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "scored"),
    [
        # Another end at the end: EOS is put there, and the one in the middle stays.
        (
            "<|im_start|>system\nHelp.<|im_end|>" + TURNS.replace("EVERY", "not loop.last"),
            ["Blue.", CHATML_END, "Red.", "</s>"],
        ),
        (
            "<|im_start|>system\nHelp.<|im_end|>"
            + ASKS_LAST
            + TURNS.replace("EVERY", "not loop.last else '<|return|>'"),
            ["Blue.", CHATML_END, "Red.", "<|return|>"],
        ),
        # An empty system turn ends as answers do, and is no header.
        ("<|system|>\n<|end|>\n" + PHI, ["Blue.", "<|end|>", "Red.", "<|end|>"]),
        (
            "<|system|>\n<|end|>\n" + PHI + "<|assistant|>\n",
            ["Blue.", "<|end|>", "Red.", "<|end|>"],
        ),
        # All headers begin with one marker.
        ("[x]" + TURNS.replace("EVERY", "false"), ["Blue.", "Red.", "</s>"]),
        (
            "[x]" + TURNS.replace("EVERY", "false") + "<|im_start|>assistant\n",
            ["Blue.", "Red.", "</s>"],
        ),
        # Counted tags, and the user's header at the end.
        (
            "{% for m in messages %}{{ '[' ~ loop.index ~ ']' ~ m.content ~ '\n' }}{% endfor %}"
            "[{{ messages | length + 1 }}]",
            ["Blue.", "Red.", "</s>"],
        ),
        (WORDS.replace("END", "\n") + "Q: ", ["Blue.", "Red.", "</s>"]),
    ],
)
@pytest.mark.parametrize("special", [(*SPECIAL, "<|end|>", "<|return|>"), ()])
def test_ends_are_told_from_headers(source: str, scored: list[str], special: Sequence[str]) -> None:
    assert spans(chat(source, special=special), TWO) == scored


def test_json_is_scored_to_its_end_or_flagged() -> None:
    template = chat(
        '{% for m in messages %}{{ \'{"role": "\' + m.role + \'", "content": \' }}'
        "{{ m.content | tojson }}{{ '}\n' }}{% endfor %}"
    )
    assert spans(template, TWO) == ["Blue.", '"}', "Red.", '"}']
    listed = "[{% for m in messages %}{{ {'role': m.role, 'content': m.content} | tojson }}"
    listed += "{{ '' if loop.last else ', ' }}{% endfor %}]"
    assert spans(chat(listed), TWO) == ["Blue.", '"}', "Red.", '"}']
    # Its last newline is written as two letters, behind which the end stands.
    assert encode(template, [user("a?"), answer("Blue.\n")]).flag == schema.TEMPLATE_REWRITES
    broken = [user("a?"), answer("Blue.\n"), user("b?"), answer("Red.")]
    assert encode(template, broken).flag == schema.TEMPLATE_REWRITES


def test_an_end_that_no_made_up_conversation_showed_is_not_replaced() -> None:
    strange = "{% if 'Z' in messages[-1].content %}{{ raise_exception('no') }}{% endif %}" + WORDS
    assert encode(chat(strange), ROUND).flag == schema.TEMPLATE_REWRITES
    assert spans(chat(strange.replace("END", "\\n")), ROUND) == ["Blue.", "</s>"]


# ── thoughts that stand elsewhere, headers between and before ────────────────────────────────────


def test_a_thought_behind_its_answer_is_scored_with_it() -> None:
    closed = "m.content + ('<why>' + m.reasoning_content + '</why>' if m.reasoning_content else '')"
    template = chat(CHATML.replace("m.content", closed))
    found = template.render([user("Why?"), answer("So.", "Hm.")])
    assert found == schema.TEMPLATE_REWRITES  # what closes the thought is no known end
    bare = chat(CHATML.replace("m.content", "m.content + '\n' + (m.reasoning_content or '')"))
    assert spans(bare, [user("Why?"), answer("So.", "Hm.")]) == ["So.\nHm.", CHATML_END]


@pytest.mark.parametrize("special", [("<|user|>", "<|thought|>", "<|assistant|>"), ()])
def test_a_header_between_thought_and_answer_is_not_scored(special: Sequence[str]) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}{% else %}"
        "{{ '<|thought|>' + m.thinking if m.thinking else '' }}"
        "{{ '<|assistant|>' + m.content + eos_token }}{% endif %}{% endfor %}"
    )
    turns = [user("Why?"), answer("So.", "Hm.")]
    assert spans(chat(source, special=special), turns) == ["Hm.", "So.", "</s>"]
    closing = source.replace("m.thinking if", "m.thinking + '</think>\n' if").replace(
        "'<|assistant|>' + m.content", "('' if m.thinking else '<|assistant|>') + m.content"
    )
    assert spans(chat(closing, special=special), turns) == ["Hm.</think>\nSo.", "</s>"]


def test_a_thought_is_missed_of_the_last_answer_that_is_scored() -> None:
    masked = [user("Why?"), answer("So.", "Hm."), user("?"), answer("Yes.", scored=False)]
    assert encode(chat(THINKING), masked).flag == schema.THINKING_NOT_RENDERED
    assert encode(chat(CHATML), masked).flag == schema.THINKING_NOT_RENDERED
    assert spans(chat(THINKING), [*masked[:3], answer("Yes.")])[0] == "So."


WITH_HEADERS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
    "{{ '<|im_start|>assistant\n' + m.content[:20] + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
)


def test_headers_inside_the_templates_own_marks_are_not_scored() -> None:
    turns = [user("a?"), answer("A long answer is cut off somewhere."), user("b?"), answer("Red.")]
    template = chat(WITH_HEADERS)
    assert spans(template, turns) == ["A long answer is cut<|im_end|>", "Red.<|im_end|>"]
    assert spans(template, TWO) == ["Blue.", CHATML_END, "Red.", CHATML_END]
    # A header that the made-up conversation does not show is not told from an answer.
    named = WITH_HEADERS.replace("assistant\n'", "' ~ (messages | length) ~ '\n'")
    assert encode(chat(named), [*turns, *turns]).flag == schema.TEMPLATE_REWRITES
