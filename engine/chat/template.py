"""The tokenizer's own chat template: what of a rendered conversation is scored.

Scored are a response as the template renders it, from its thought where that is kept apart and
rendered, and the end-of-turn token behind it, else EOS. What the template puts around them
(headers, an empty thought, white space) is not; nor is a header between a thought and its answer,
but what closes the thought there is. Where it marks its responses with
``{% generation %}``, what lies outside the marks is not scored either.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from engine import schema
from engine.chat import ends, heads, marks
from engine.chat.marks import CONTENT, THINKING, Span
from engine.chat.rendering import REFUSALS, Message, Renderer
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


class ChatTemplate:
    """Encodes conversations with a tokenizer's chat template.

    Raises:
        ValueError: the tokenizer has no chat template.
        TemplateError: it is not valid Jinja.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        which: str = "all",
        date: datetime.date | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.which = which
        self.renderer = Renderer(tokenizer, date)
        self.ends = ends.learn(self.renderer, tokenizer)
        self.heads = heads.learn(self.renderer)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """See `Template`. A conversation that the template refuses or rewrites is flagged."""
        rendered = [self.render(turns) for turns in conversations]
        return encode_all(self.tokenizer, rendered, self.max_tokens, add_special_tokens=False)

    def render(self, conversation: Conversation) -> Rendered | str:
        """The conversation up to its last response with what is scored, or its flag."""
        turns = as_turns(conversation)
        wanted = scored_turns(turns, self.which)
        if not wanted:
            return schema.NO_SCORED_TOKEN
        messages = as_messages(until_last_response(turns))
        before = list(accumulate(turn.role == schema.INPUT for turn in turns))
        scored = [place - before[place] for place in wanted]
        keys = (CONTENT, THINKING)
        fields = [(place, key) for place in scored for key in keys if key in messages[place]]
        try:
            placed = marks.place(self.renderer.text, messages, fields)
            ranges = self.renderer.ranges(messages) if self.renderer.marks_responses else None
        except REFUSALS:
            return schema.TEMPLATE_REFUSED
        if placed is None:
            return self._as_marked(messages, scored, ranges)
        return self._scored(messages, scored, placed, ranges)

    def _scored(
        self,
        messages: list[Message],
        scored: list[int],
        placed: marks.Placed,
        ranges: list[Span] | None,
    ) -> Rendered | str:
        last = len(messages) - 1
        text, spans = placed.text, []
        ends_turn = False
        for place in scored:
            content, thought = (placed.spans.get((place, key)) for key in (CONTENT, THINKING))
            is_final = place == scored[-1]
            if is_final and THINKING in messages[place] and thought is None:
                return schema.THINKING_NOT_RENDERED
            if content is None:
                if is_final:
                    return schema.TEMPLATE_REWRITES
                continue  # an earlier answer that the template leaves out is no part of the text
            parts = self._parts(text, sorted(filter(None, (thought, content))))
            stop = parts[-1][1]
            end = self.ends.find(text, stop, place == last)
            if end is None and place == last:
                if not self.ends.is_over(text, stop):
                    return schema.TEMPLATE_REWRITES
                text = text[:stop] + str(self.tokenizer.eos_token)
                end = (stop, len(text))
                if ranges is not None:
                    ranges = [*ranges, *([end] if _inside(parts[-1], ranges) else [])]
            elif end is None and self.ends.middle and messages[place + 1]["role"] == schema.USER:
                return schema.TEMPLATE_REWRITES  # the answer goes on behind what was found of it
            spans += [part for span in parts for part in _within(span, ranges)]
            ends_turn = end is not None and (ranges is None or _inside(end, ranges))
            if ends_turn:
                spans.append(end)
        if not spans:
            return schema.NO_SCORED_TOKEN
        return Rendered(text[: spans[-1][1]], tuple(spans), ends_turn)

    def _parts(self, text: str, spans: list[Span]) -> list[Span]:
        """Thought and answer as one span, or as two where a header stands between them."""
        (begin, first_stop), (start, stop) = spans[0], spans[-1]
        header = self.ends.header_in(text[first_stop:start]) if len(spans) > 1 else None
        if header is None:
            return [(begin, max(first_stop, stop))]
        thought = text[begin : first_stop + header].rstrip()
        return [(begin, max(begin + len(thought), first_stop)), (start, stop)]

    def _as_marked(
        self, messages: list[Message], scored: list[int], ranges: list[Span] | None
    ) -> Rendered | str:
        """What the template marks, where responses can't be found and every one is scored."""
        responses = [i for i, one in enumerate(messages) if one["role"] == schema.ASSISTANT]
        if not ranges or scored != responses:
            return schema.TEMPLATE_REWRITES
        text = self.renderer.text(messages)
        spans: list[Span] = []
        for start, end in ranges:
            head = self.heads.of(text[start:end])
            if head is None:
                return schema.TEMPLATE_REWRITES
            start += len(head)
            inner = text[start:end].strip()
            if inner:
                start = text.index(inner, start)
                spans.append((start, start + len(inner)))
        if not spans:
            return schema.NO_SCORED_TOKEN
        marked = text[: spans[-1][1]]
        ends_turn = any(end and marked.endswith(end) for end in (self.ends.last, self.ends.middle))
        return Rendered(marked, tuple(spans), ends_turn)


def as_messages(turns: Sequence[Turn]) -> list[Message]:
    """Turns as chat templates want them: an input joins the user turn before it.

    A thought goes under both names that templates read, as transformers passes it.
    """
    messages: list[Message] = []
    for turn in turns:
        if turn.role == schema.INPUT:
            parts = [messages[-1]["content"], turn.content]
            messages[-1]["content"] = "\n\n".join(part for part in parts if part)
            continue
        messages.append({"role": turn.role, "content": turn.content})
        if turn.thinking:
            messages[-1] |= {THINKING: turn.thinking, "thinking": turn.thinking}
    return messages


def _inside(span: Span, ranges: Sequence[Span]) -> bool:
    """Whether its last character is in one of the ranges."""
    return any(start < span[1] <= end for start, end in ranges)


def _within(span: Span, ranges: Sequence[Span] | None) -> list[Span]:
    """The parts of the span that are in one of the ranges; all of it where there are none."""
    if ranges is None:
        return [span]
    parts = [(max(start, span[0]), min(end, span[1])) for start, end in ranges]
    return [part for part in parts if part[0] < part[1]]
