"""Conversation + template → token ids, scored positions and length flags.

A template turns a conversation into one text and says which characters of it are response: every
assistant turn's content and the end-of-turn token behind it. The text is tokenised as a whole, and
a token is scored when it *starts* inside a response. Positions decide, never token ids: pad, EOS
and BOS are often the same token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from engine import schema

Turn = tuple[str, str]
"""Role and content."""

BATCH_ROWS = 256
"""Texts tokenised at a time: what a tokenizer makes of them is some 100 bytes per token."""

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


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text."""

    text: str
    responses: tuple[tuple[int, int], ...]
    """Character spans [start, end) of the responses, end-of-turn token included."""


@dataclass(frozen=True)
class Encoded:
    """A row as the model sees it."""

    input_ids: npt.NDArray[np.int32]
    scored: npt.NDArray[np.int32]
    """Positions in `input_ids` that are scored, ascending."""
    end_scored: bool
    """The last scored position holds the end-of-turn token of the last response."""
    truncated: bool
    flag: str


class Template(Protocol):
    """Encodes conversations for one tokenizer."""

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Encoded]:
        """Token ids and scored positions of each conversation."""
        ...


def make_template(name: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Template:
    """The configured template (``alpaca`` or ``chat``) for a tokenizer and a context length."""
    kind = {"alpaca": AlpacaTemplate, "chat": ChatTemplate}[name]
    return kind(tokenizer, max_tokens)


class AlpacaTemplate:
    """The paper's prompt. Later turns repeat the instruction and response blocks."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.end = str(tokenizer.eos_token)

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Encoded]:
        """See `Template`."""
        rendered = [render_alpaca(turns, self.end) for turns in conversations]
        return _tokenise(self.tokenizer, rendered, self.max_tokens, add_special_tokens=True)


def render_alpaca(turns: Sequence[Turn], end: str) -> Rendered:
    """The Alpaca text of a conversation; `end` (EOS) follows each response.

    A system turn stands before the introduction. Turns behind the last response are left out.
    """
    turns = until_last_response(turns)
    has_input = any(role == schema.INPUT and content for role, content in turns[:3])
    text = ""
    spans: list[tuple[int, int]] = []
    for role, content in turns:
        if role == schema.SYSTEM:
            text += f"{content}\n\n"
        elif role == schema.USER:
            text += "\n\n" if spans else (ALPACA_INTRO_INPUT if has_input else ALPACA_INTRO)
            text += f"### Instruction:\n{content}\n\n"
        elif role == schema.INPUT:
            text += f"### Input:\n{content}\n\n" if content else ""
        else:
            text += "### Response:"
            spans.append((len(text), len(text) + len(content) + len(end)))
            text += content + end
    return Rendered(text, tuple(spans))


class ChatTemplate:
    """The tokenizer's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.marks_responses = "{% generation" in str(tokenizer.chat_template).replace("{%-", "{%")
        # Not `all_special_tokens`: it holds only those with a role such as EOS.
        self.special_ids = {
            str(token.content): token_id
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special and token.content
        }
        self.special = tuple(self.special_ids)

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Encoded]:
        """See `Template`. A conversation that the template refuses or rewrites is flagged."""
        results: list[Encoded | None] = []
        rendered: list[Rendered] = []
        for turns in conversations:
            made = self._one(as_messages(until_last_response(turns)))
            results.append(None if isinstance(made, Rendered) else made)
            if isinstance(made, Rendered):
                rendered.append(made)
        encoded = iter(
            _tokenise(self.tokenizer, rendered, self.max_tokens, add_special_tokens=False)
        )
        return [next(encoded) if result is None else result for result in results]

    def _one(self, messages: list[dict[str, str]]) -> Rendered | Encoded:
        try:
            return self._marked(messages) if self.marks_responses else self._render(messages)
        except (TemplateError, ValueError, TypeError):
            return _flagged(schema.TEMPLATE_REFUSED)

    def _marked(self, messages: list[dict[str, str]]) -> Encoded:
        """Through the template's own ``{% generation %}`` marks."""
        made: Any = self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        scored = np.flatnonzero(made["assistant_masks"])
        if not len(scored):
            return _cut(made["input_ids"], scored, False, self.max_tokens)
        ids = made["input_ids"][: scored[-1] + 1]  # nothing behind the last response is scored
        return _cut(ids, scored, ids[-1] in self.special_ids.values(), self.max_tokens)

    def _render(self, messages: list[dict[str, str]]) -> Rendered | Encoded:
        """Through prefix differences: what the text gains by an assistant turn is its response."""
        text = self._text(messages)
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message["role"] != schema.ASSISTANT:
                continue
            before = self._text(messages[:index], add_generation_prompt=True)
            after = self._text(messages[: index + 1])
            if not (after.startswith(before) and text.startswith(after)):
                return _flagged(schema.TEMPLATE_NOT_PREFIX)
            spans.append((len(before), self._end_of_turn(after)))
        if not text[: spans[-1][1]].endswith(self.special):
            text = text[: spans[-1][1]] + str(self.tokenizer.eos_token)
            spans[-1] = (spans[-1][0], len(text))
        return Rendered(text[: spans[-1][1]], tuple(spans))

    def _end_of_turn(self, text: str) -> int:
        """Where a response ends: behind its end-of-turn token, not the template's white space."""
        stripped = text.rstrip()
        return len(stripped) if stripped.endswith(self.special) else len(text)

    def _text(self, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )


def until_last_response(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The conversation without what follows the last assistant turn: nothing there is scored."""
    last = max(index for index, (role, _) in enumerate(turns) if role == schema.ASSISTANT)
    return turns[: last + 1]


def as_messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Turns as chat templates want them: an input joins the user turn before it."""
    messages: list[dict[str, str]] = []
    for role, content in turns:
        if role == schema.INPUT:
            parts = [messages[-1]["content"], content]
            messages[-1]["content"] = "\n\n".join(part for part in parts if part)
        else:
            messages.append({"role": role, "content": content})
    return messages


def _tokenise(
    tokenizer: PreTrainedTokenizerBase,
    rendered: Sequence[Rendered],
    max_tokens: int,
    add_special_tokens: bool,
) -> list[Encoded]:
    # Past transformers, which would copy every row's ids and offsets into lists and keep them for
    # the whole batch; these three settings are what it would set for a plain call.
    backend: Any = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encoded: list[Encoded] = []
    for start in range(0, len(rendered), BATCH_ROWS):
        batch = rendered[start : start + BATCH_ROWS]
        made = backend.encode_batch(
            [one.text for one in batch], add_special_tokens=add_special_tokens
        )
        encoded += [
            _encode(row.ids, row.offsets, one, max_tokens)
            for row, one in zip(made, batch, strict=True)
        ]
    return encoded


def _encode(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], one: Rendered, max_tokens: int
) -> Encoded:
    # Every offset is looked at: tokenizers do not promise that they ascend. `fromiter` over the
    # flat numbers takes half as long as `asarray`, which first asks each pair for its shape.
    flat = np.fromiter(chain.from_iterable(offsets), dtype=np.int64, count=2 * len(ids))
    starts, ends = flat.reshape(-1, 2).T
    # A special token put in by the tokenizer has the empty span (0, 0). It is never scored, and
    # behind the text, where some put EOS, it would be a second end token.
    in_text = ends > 0
    length = int(in_text.nonzero()[0][-1]) + 1 if in_text.any() else 0
    scored = np.zeros(len(ids), dtype=bool)
    for first, end in one.responses:
        scored |= (starts >= first) & (starts < end)
    return _cut(ids[:length], (scored & in_text).nonzero()[0], True, max_tokens)


def _cut(
    ids: Sequence[int], scored: npt.NDArray[np.integer], ends_turn: bool, max_tokens: int
) -> Encoded:
    """Cut a row at the context's end, on the right."""
    truncated = len(ids) > max_tokens
    inside = scored[scored < max_tokens]
    complete = bool(len(inside)) and len(inside) == len(scored)
    return Encoded(
        input_ids=np.asarray(ids[:max_tokens], dtype=np.int32),
        scored=inside.astype(np.int32),
        end_scored=complete and ends_turn,
        truncated=truncated,
        flag=_length_flag(len(inside), truncated),
    )


def _length_flag(num_scored: int, truncated: bool) -> str:
    if num_scored:
        return schema.OK
    return schema.PROMPT_TOO_LONG if truncated else schema.NO_SCORED_TOKEN


def _flagged(flag: str) -> Encoded:
    empty = np.zeros(0, dtype=np.int32)
    return Encoded(empty, empty, end_scored=False, truncated=False, flag=flag)
