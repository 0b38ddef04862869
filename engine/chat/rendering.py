"""A tokenizer's chat template, rendered as transformers renders it, on one fixed day."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

Message = dict[str, str]
Ranges = list[tuple[int, int]]

REFUSALS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template may raise on a conversation: its own refusals, and its own mistakes."""

_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
_CLOCK = "strftime_now"


class Renderer:
    """Renders messages with what `apply_chat_template(tokenize=False)` would give the template.

    Past that function for two reasons: it gives away the characters between ``{% generation %}``
    marks only as tokens, and nothing that is passed to it replaces the clock.

    Raises:
        ValueError: the tokenizer has no chat template, or several and none for chats.
        TemplateError: the template is not valid Jinja.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: datetime.date | None) -> None:
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template")
        source = _source(tokenizer)
        self.marks_responses = _GENERATION.search(source) is not None
        self._environment: Any = _compile_jinja_template(source).environment
        self._variables: dict[str, Any] = {
            **tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
            "add_generation_prompt": False,
        }
        clock: dict[str, Any] = {}
        if date is not None:
            day = datetime.datetime(date.year, date.month, date.day)
            clock[_CLOCK] = lambda form: day.strftime(form)
            if _CLOCK not in source:  # it has a date of its own, which can be set
                self._variables["date_string"] = day.strftime("%d %b %Y")
        self._template = self._environment.from_string(source, globals=clock)

    def text(self, messages: Sequence[Message], ask: bool = False) -> str:
        """The conversation as one text, with the generation prompt if an answer is asked for.

        Raises:
            Exception: one of `REFUSALS`.
        """
        variables = {**self._variables, "add_generation_prompt": ask}
        return str(self._template.render(messages=messages, **variables))

    def ranges(self, messages: Sequence[Message]) -> Ranges:
        """Character spans that the template itself marks as generated."""
        blocks: list[str] = []
        found: Ranges = []
        with self._environment.activate_tracker(blocks, found):
            for block in self._template.generate(messages=messages, **self._variables):
                blocks.append(block)  # noqa: PERF402 (the tracker looks at what there is so far)
        return found


def prints_today(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template asks for today's date; no, where there is none that can be used."""
    try:
        return bool(tokenizer.chat_template) and _CLOCK in _source(tokenizer)
    except ValueError:
        return False


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    named: Any = tokenizer.chat_template
    if isinstance(named, dict) and "default" not in named:
        raise ValueError(
            f"there are several ({', '.join(sorted(map(str, named)))}), and none is named default. "
            "Save the one you mean as chat_template.jinja in a folder with the model"
        )
    return str(tokenizer.get_chat_template())
