"""What a template's own marks for its responses hold in front of them: a role's header.

``{% generation %}`` marks may begin before the header. Two made-up conversations that differ in
every letter of their answers show what the marked stretches begin with whatever the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from engine import schema
from engine.chat.rendering import REFUSALS, Message, Renderer

_ANSWERS = (("Kqanswer1Xj", "Kqanswer2Xj"), ("Zwreply3Yv", "Zwreply4Yv"))
_QUERY: Message = {"role": schema.USER, "content": "Zquery0Z"}
_SYSTEM: Message = {"role": schema.SYSTEM, "content": "Zsystem9Z"}


@dataclass(frozen=True)
class Heads:
    """The headers inside the marks of one template, longest first; none where it is unknown."""

    known: tuple[str, ...]

    def of(self, marked: str) -> str | None:
        """The header that the marked text begins with; None where it is none that is known."""
        return next((head for head in self.known if marked.startswith(head)), None)


def learn(renderer: Renderer) -> Heads:
    """The headers of a first, a later and a last answer."""
    if not renderer.marks_responses:
        return Heads(())
    for rounds in (2, 1):
        for first in ([], [_SYSTEM]):
            try:
                one, other = (_marked(renderer, first, each[:rounds]) for each in _ANSWERS)
            except REFUSALS:
                continue
            if one and len(one) == len(other):
                found = {_common(*pair) for pair in zip(one, other, strict=True)}
                return Heads(tuple(sorted(found, key=lambda head: (-len(head), head))))
    return Heads(())


def _marked(renderer: Renderer, first: list[Message], answers: tuple[str, ...]) -> list[str]:
    messages = list(first)
    for answer in answers:
        messages += [_QUERY, {"role": schema.ASSISTANT, "content": answer}]
    text = renderer.text(messages)
    return [text[start:end] for start, end in renderer.ranges(messages)]


def _common(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(first for first, _ in pairs)
