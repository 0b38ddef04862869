"""Which text behind a response is its end-of-turn token.

It may be a special token or ordinary text, another one at the conversation's end (GPT-OSS), have
EOS behind it (Phi-3), or not be there at all, and then what follows a response is the next turn's
header (GLM-4). A made-up conversation is rendered once per template to tell these apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from engine import schema
from engine.chat.rendering import REFUSALS, Message

Render = Callable[[Sequence[Message]], str]

_TURNS = ("Zquery0Z", "Zanswer1Z", "Zquery2Z", "Zanswer3Z")
_TAG = r"<[^<>\s]*>|\[[^\[\]\s]*\]"


@dataclass(frozen=True)
class Ends:
    """The end-of-turn tokens of one template."""

    middle: str
    """Behind a response that another turn follows; empty where there is none."""
    last: str
    """Behind the last response; empty where there is none."""
    special: re.Pattern[str]
    """A special token of the tokenizer."""
    is_known: bool = True
    """False where the template refused the made-up conversation."""

    def find(self, text: str, place: int, is_last: bool) -> tuple[int, int] | None:
        """Span of the end-of-turn token of the response that ends at `place`; white space between
        them is no part of it.
        """
        start = place
        while start < len(text) and text[start].isspace():
            start += 1
        first = (self.last, self.middle) if is_last else (self.middle, self.last)
        special = self.special.match(text, start)
        end = next((end for end in first if end and text.startswith(end, start)), None)
        if end is None and special and (is_last or not self.is_known):
            end = special.group()
        if end is None:
            return None
        return start, start + len(end)


def learn(render: Render, tokenizer: PreTrainedTokenizerBase) -> Ends:
    """What a template puts behind its responses."""
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = {str(token.content) for token in added if token.content}
    own = {str(name) for name in (tokenizer.eos_token, tokenizer.bos_token) if name}
    special = _any_of(names) if names else re.compile(r"(?!)")
    gaps = _gaps(render)
    if gaps is None:
        return Ends("", "", special, is_known=False)
    atoms = re.compile("|".join([*_longest_first(names | own), _TAG, r"\s+", r"\w+", r"[^\w\s]"]))
    before, middle, last = (atoms.findall(gap) for gap in gaps)
    return Ends(*_ends(before, middle, last, special, str(tokenizer.eos_token)), special)


def _gaps(render: Render) -> tuple[str, str, str] | None:
    """What stands before the first turn, between a response and the next turn, and at the end."""
    roles = (schema.USER, schema.ASSISTANT) * 2
    turns = [{"role": role, "content": text} for role, text in zip(roles, _TURNS, strict=True)]
    for first in ([], [{"role": schema.SYSTEM, "content": "Zsystem9Z"}]):
        try:
            text = render([*first, *turns])
        except REFUSALS:
            continue
        places = [text.rfind(turn) for turn in _TURNS]
        if min(places) < 0 or places != sorted(places):
            continue
        query, answer, again, end = places
        middle = text[answer + len(_TURNS[1]) : again]
        return text[:query], middle, text[end + len(_TURNS[3]) :]
    return None


def _ends(
    before: list[str], middle: list[str], last: list[str], special: re.Pattern[str], eos: str
) -> tuple[str, str]:
    """End-of-turn tokens in the middle and at the end."""
    # What every user turn begins with; before the first one a system prompt may end the same way.
    header = len(_common(before[::-1], middle[::-1]))
    own = middle[: len(middle) - header]
    shared = _first(_common(middle, last), special)
    if shared and _first(last, special) == shared:
        return shared, shared
    if not "".join(last).strip():
        is_eos = _first(middle, special) == eos
        is_told = "".join(middle[len(middle) - header :]).strip()
        return (eos if is_eos else _first(own, special) if is_told else ""), ""
    return _first(own, special) or _first(middle, special), _first(last, special)


def _common(one: list[str], other: list[str]) -> list[str]:
    pairs = zip(one, other, strict=False)
    return [first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _first(atoms: list[str], special: re.Pattern[str]) -> str:
    """The first token: a special one, a tag, else text up to white space."""
    rest = list(atoms)
    while rest and rest[0].isspace():
        rest.pop(0)
    if not rest:
        return ""
    if special.fullmatch(rest[0]) or re.fullmatch(_TAG, rest[0]):
        return rest[0]
    word = takewhile(
        lambda atom: not (atom.isspace() or special.fullmatch(atom) or re.fullmatch(_TAG, atom)),
        rest,
    )
    return "".join(word)


def _longest_first(names: set[str]) -> list[str]:
    return [re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name))]


def _any_of(names: set[str]) -> re.Pattern[str]:
    return re.compile("|".join(_longest_first(names)))
