"""A conversation as one text, and which characters of it are scored: the wording.

Scored are the content of every assistant turn that is not masked and the end-of-turn token behind
it. Here is the paper's wording; `engine.chat` speaks through the tokenizer's own chat template.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from engine import schema
from engine.chat.template import ChatTemplate
from engine.encoding import (
    Conversation,
    Encoded,
    Rendered,
    as_turns,
    encode_all,
    scored_turns,
    until_last_response,
)
from engine.formats import Turn

# The wording of the paper's reference (Stanford Alpaca), to the letter: scores are only comparable
# with published ones when the prompt is the same.
ALPACA_INTRO_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
)
ALPACA_INTRO = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n"
)


class Template(Protocol):
    """Encodes conversations for one tokenizer."""

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Token ids and scored positions of each conversation."""
        ...


def make_template(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    which: str = "all",
    date: datetime.date | None = None,
) -> Template:
    """The configured template for a tokenizer.

    Args:
        name: ``alpaca`` or ``chat``.
        tokenizer: a fast one.
        max_tokens: the context's length.
        which: score ``all`` assistant turns, or the ``last``.
        date: what a chat template prints as today's date; None for today.
    """
    if name == "alpaca":
        return AlpacaTemplate(tokenizer, max_tokens, which)
    return ChatTemplate(tokenizer, max_tokens, which, date)


class AlpacaTemplate:
    """The paper's prompt. Later turns repeat the instruction and response blocks."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, which: str = "all"
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.which = which
        self.end = str(tokenizer.eos_token)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """See `Template`. A conversation with thoughts is flagged: the paper's text has none."""
        rendered = [self._one(as_turns(turns)) for turns in conversations]
        return encode_all(self.tokenizer, rendered, self.max_tokens, add_special_tokens=True)

    def _one(self, turns: Sequence[Turn]) -> Rendered | str:
        scored = scored_turns(turns, self.which)
        if not scored:
            return schema.NO_SCORED_TOKEN
        if any(turns[place].thinking for place in scored):
            return schema.THINKING_NOT_RENDERED
        return render_alpaca(turns, self.end, self.which)


def render_alpaca(conversation: Conversation, end: str, which: str = "all") -> Rendered:
    """The Alpaca text of a conversation; `end` (EOS) follows each response.

    A system turn stands before the introduction. What follows the last scored response is left out.
    """
    turns = as_turns(conversation)
    scored = scored_turns(turns, which)
    has_input = any(turn.role == schema.INPUT and turn.content for turn in turns[:3])
    first = next((turn for turn in turns if turn.role == schema.USER), None)
    text = ""
    spans: list[tuple[int, int]] = []
    for place, turn in enumerate(until_last_response(turns)):
        if turn.role == schema.SYSTEM:
            text += f"{turn.content}\n\n"
        elif turn.role == schema.USER:
            intro = ALPACA_INTRO_INPUT if has_input else ALPACA_INTRO
            text += intro if turn is first else "\n\n"
            text += f"### Instruction:\n{turn.content}\n\n"
        elif turn.role == schema.INPUT:
            text += f"### Input:\n{turn.content}\n\n" if turn.content else ""
        else:
            text += "### Response:"
            if place in scored:
                spans.append((len(text), len(text) + len(turn.content) + len(end)))
            text += turn.content + end
    return Rendered(text[: spans[-1][1]] if spans else text, tuple(spans), bool(spans))
