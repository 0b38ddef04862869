"""What a template puts around the turns of a made-up conversation, cut into atoms.

It is rendered a few times when a template is loaded: with three rounds, of which the third shows
what varies from round to round; up to a user turn; and with the generation prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from transformers import PreTrainedTokenizerBase

from engine import schema
from engine.chat.rendering import REFUSALS, Message, Renderer

Text = list[str]
"""Atoms: a marker, a stretch of white space, a word, or any other character."""

_TURNS = ("Zquery0Z", "Zanswer1Z", "Zquery2Z", "Zanswer3Z", "Zquery4Z", "Zanswer5Z")
_SYSTEM: Message = {"role": schema.SYSTEM, "content": "Zsystem9Z"}
_TAG = r"<[^<>\s]*>|\[[^\[\]\s]*\]"


class Atoms:
    """Cuts rendered text of one tokenizer into atoms."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        names = {str(token.content) for token in added if token.content}
        own = {str(name) for name in (tokenizer.eos_token, tokenizer.bos_token) if name}
        self.eos = str(tokenizer.eos_token)
        self.special = re.compile("|".join(_longest_first(names)) or r"(?!)")
        """A special token of the tokenizer."""
        markers = "|".join([*_longest_first(names | own), _TAG])
        self._marker = re.compile(markers)
        self._atom = re.compile(rf"{markers}|\s+|\w+|[^\w\s]")

    def cut(self, text: str) -> Text:
        """The text's atoms; joined, they are the text."""
        return self._atom.findall(text)

    def is_marker(self, atom: str) -> bool:
        """A special token, EOS or BOS, or ordinary text that looks like one: a tag."""
        return self._marker.fullmatch(atom) is not None

    def first_marker(self, text: Text) -> str:
        """The marker that the text begins with, white space aside; empty where it has none."""
        first = next((atom for atom in text if not atom.isspace()), "")
        return first if self.is_marker(first) else ""

    def first_line(self, text: Text) -> str:
        """What the text begins with, white space aside, up to a line's end or a marker."""
        rest = text[1:] if text and text[0].isspace() else text
        line = takewhile(lambda atom: "\n" not in atom and not self.is_marker(atom), rest)
        return "".join(line).strip()


@dataclass(frozen=True)
class Gaps:
    """What stands around the turns of the made-up conversation."""

    before: Text
    """In front of the first user turn."""
    headers: list[Text]
    """Between each user turn and its answer."""
    middles: list[Text]
    """Between each answer and the next user turn; none where the template takes one round only."""
    last: Text
    """Behind the last answer."""
    asked: Text
    """Behind a user turn that the conversation ends with; empty where the template refuses that."""
    prompt: Text
    """What it puts there when asked for an answer; empty where that is the same."""


def gaps_of(renderer: Renderer, atoms: Atoms) -> Gaps | None:
    """The gaps of the longest made-up conversation that the template takes, None of none."""
    for rounds in (3, 2, 1):
        for first in ([], [_SYSTEM]):
            gaps = _gaps(renderer, atoms, first, rounds)
            if gaps is not None:
                return gaps
    return None


def _gaps(renderer: Renderer, atoms: Atoms, first: list[Message], rounds: int) -> Gaps | None:
    contents = _TURNS[: 2 * rounds]
    roles = (schema.USER, schema.ASSISTANT) * rounds
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
    try:
        text = renderer.text([*first, *turns])
    except REFUSALS:
        return None
    places = [text.rfind(content) for content in contents]
    if min(places) < 0 or places != sorted(places):
        return None
    spans = [(at, at + len(content)) for at, content in zip(places, contents, strict=True)]
    between = [atoms.cut(text[end:start]) for (_, end), (start, _) in pairwise(spans)]
    asked, prompt = _asked(renderer, atoms, [*first, *turns[:-1]], contents[-2])
    before, last = atoms.cut(text[: places[0]]), atoms.cut(text[spans[-1][1] :])
    return Gaps(before, between[::2], between[1::2], last, asked, prompt)


def _asked(
    renderer: Renderer, atoms: Atoms, messages: Sequence[Message], query: str
) -> tuple[Text, Text]:
    """What stands behind a last user turn, and the generation prompt."""
    try:
        plain, asking = renderer.text(messages), renderer.text(messages, ask=True)
    except REFUSALS:
        return [], []
    asked, more = (atoms.cut(text[text.rfind(query) + len(query) :]) for text in (plain, asking))
    return asked, more[len(common(asked, more)) :]


def common(one: Text, other: Text) -> Text:
    """What both begin with."""
    pairs = zip(one, other, strict=False)
    return [first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _longest_first(names: set[str]) -> list[str]:
    return [re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name))]
