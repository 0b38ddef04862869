"""Where each response stands in a rendered conversation.

The conversation is rendered a second time with marks, single characters that occur nowhere in it,
around each response. Where the text without its marks is the first text again, the template has
treated both alike, and the marks say where the responses are: whatever else the text holds,
however often a response is repeated, and whether or not the template is a prefix of itself.

Marks stand inside a response's white space, so that a template may strip it. What of that space is
left is found by a third rendering, without it. Where a template drops the beginning of a response
(an earlier thought), further marks are set behind everything that looks like the end of a tag or a
paragraph, and the first that is left is the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.chat.rendering import REFUSALS, Message

Field = tuple[int, str]
"""Place of a message, and ``content`` or ``reasoning_content``."""
Seen = list[tuple[int, int]]
"""Of each mark that is left of a field: its place in the field's text, and in the rendered one."""
Span = tuple[int, int]
Render = Callable[[Sequence[Message]], str]

CONTENT, THINKING = "content", "reasoning_content"
_KEYS = {CONTENT: (CONTENT,), THINKING: (THINKING, "thinking")}
"""Templates read one of the two; transformers passes both as well."""

# Planes of private characters: (first, how many). Text has hardly ever any of them.
_PLANES = ((0xF0000, 65_000), (0x100000, 65_000), (0xE000, 6_400))
_PRIVATE = re.compile("[\U000f0000-\U000ffffd\U00100000-\U0010fffd\ue000-\uf8ff]")
_MAX_FURTHER = 2_000
"""Further marks in one response."""
_FURTHER = re.compile(r"(?:[>\]}|:]\s*|\n\s*)(?=\S)(?![<\[][/|])")
"""Not before a closing tag: a template that strips what is inside would miss its white space."""
_OPENING, _CLOSING = "<[{", ">]}"
_SURE = 24
"""So many characters that match outside the marks are no chance."""


@dataclass(frozen=True)
class Placed:
    """A rendered conversation and the spans that were found in it."""

    text: str
    spans: Mapping[Field, Span]


def place(render: Render, messages: Sequence[Message], fields: Sequence[Field]) -> Placed | None:
    """Spans of the fields' texts in the rendered conversation; None where that cannot be told.

    Args:
        render: the template.
        messages: the conversation.
        fields: those that are sought; of a text that the template leaves out there is no span.

    Raises:
        Exception: one of `REFUSALS`, where the template refuses the conversation.
    """
    text = render(messages)
    texts = {field: value for field in fields if (value := messages[field[0]][field[1]]).strip()}
    cuts = {field: _bounds(value) for field, value in texts.items()}
    found = _seen(render, messages, cuts, text)
    unsure = [field for field in texts if found is None or len(found[field]) < len(cuts[field])]
    if unsure:
        for field in unsure:
            cuts[field] = _further(texts[field], keep_ends=found is not None)
        again = _seen(render, messages, cuts, text)
        if again is None and (found is None or any(found[field] for field in unsure)):
            return None
        found = again or found
    assert found is not None
    left = {field: seen for field, seen in found.items() if seen}
    grown = {field: _grown(text, texts[field], seen) for field, seen in left.items()}
    if any(start >= end for start, end, *_ in grown.values()):
        return None
    spaces = _spaces(render, messages, texts, left, text)
    return Placed(
        text,
        {
            field: (start - spaces[field][0] * exact_start, end + spaces[field][1] * exact_end)
            for field, (start, end, exact_start, exact_end) in grown.items()
        },
    )


def _bounds(text: str) -> list[int]:
    return [len(text) - len(text.lstrip()), len(text.rstrip())]


def _further(text: str, keep_ends: bool) -> list[int]:
    """Places behind tags and paragraphs; a template may look at how a text begins or ends."""
    first, last = _bounds(text)
    inside = [match.end() for match in _FURTHER.finditer(text, first, last)]
    if len(inside) > _MAX_FURTHER:
        half = _MAX_FURTHER // 2
        inside = [*inside[:half], *inside[-half:]]
    begins = [first] if keep_ends or text[first] not in _OPENING else []
    ends = [last] if keep_ends or text[last - 1] not in _CLOSING else []
    return sorted({*begins, *inside, *ends})


def _seen(
    render: Render, messages: Sequence[Message], cuts: Mapping[Field, list[int]], text: str
) -> dict[Field, Seen] | None:
    """Where the marks come out; None where they change the text, or one comes out twice."""
    base = _free(messages, sum(map(len, cuts.values())))
    if base is None:
        return None
    owners: list[tuple[Field, int]] = []
    marked = [dict(message) for message in messages]
    for field, places in cuts.items():
        value = messages[field[0]][field[1]]
        parts: list[str] = []
        before = 0
        for cut in places:
            parts += (value[before:cut], chr(base + len(owners)))
            owners.append((field, cut))
            before = cut
        parts.append(value[before:])
        for key in _KEYS[field[1]]:
            marked[field[0]][key] = "".join(parts)
    try:
        out = render(marked)
    except REFUSALS:
        return None
    pieces = re.split(f"([{chr(base)}-{chr(base + max(len(owners) - 1, 0))}])", out)
    if "".join(pieces[::2]) != text:
        return None
    found: dict[Field, Seen] = {field: [] for field in cuts}
    marks = pieces[1::2]
    if len(set(marks)) < len(marks):
        return None
    position = 0
    for piece, mark in zip(pieces[::2], marks, strict=False):
        position += len(piece)
        field, cut = owners[ord(mark) - base]
        found[field].append((cut, position))
    if any(seen != sorted(seen) for seen in found.values()):
        return None
    return found


def _free(messages: Sequence[Message], num: int) -> int | None:
    """First of `num` private characters in a row that no message has any of."""
    values = [value for message in messages for value in message.values() if not value.isascii()]
    taken = sorted({ord(letter) for value in values for letter in _PRIVATE.findall(value)})
    for first, size in _PLANES:
        here = [code for code in taken if first <= code < first + size]
        for start, end in pairwise([first - 1, *here, first + size]):
            if end - start > num:
                return start + 1
    return None


def _grown(text: str, value: str, seen: Seen) -> tuple[int, int, bool, bool]:
    """A span from the first to the last mark, and beyond where the text plainly goes on.

    Where a template puts a thought together anew, the text before the first mark is the whole
    beginning of the response but for white space. Returned with it: whether each end is at a mark.
    """
    (first, start), (last, end) = seen[0], seen[-1]
    before, after = value[:first].strip(), value[last:].strip()
    more_before = _match(text[:start][::-1], before[::-1]) if before else 0
    more_after = _match(text[end:], after) if after else 0
    return start - more_before, end + more_after, not more_before, not more_after


def _match(text: str, value: str) -> int:
    """How far `text` goes on as `value` does, white space aside: all of it, or plainly, or 0."""
    place = matched = reached = 0
    for letter in value:
        if letter.isspace():
            continue
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text) or text[place] != letter:
            return reached if matched >= _SURE else 0
        place += 1
        matched += 1
        reached = place
    return reached


def _spaces(
    render: Render,
    messages: Sequence[Message],
    texts: Mapping[Field, str],
    found: Mapping[Field, Seen],
    text: str,
) -> dict[Field, tuple[int, int]]:
    """How much of the white space at each end of a span is the response's own.

    It is what there is more of than in a rendering of the conversation without it.
    """
    own = {
        field: (_space(texts[field][: seen[0][0]], True), _space(texts[field][seen[-1][0] :]))
        for field, seen in found.items()
    }
    none: dict[Field, Span] = dict.fromkeys(found, (0, 0))
    if not any(left or right for left, right in own.values()):
        return none
    bare = [dict(message) for message in messages]
    cuts: dict[Field, list[int]] = {}
    for field, seen in found.items():
        value, (left, right) = texts[field], own[field]
        first, last = seen[0][0], seen[-1][0]
        value = value[: first - len(left)] + value[first:last] + value[last + len(right) :]
        for key in _KEYS[field[1]]:
            bare[field[0]][key] = value
        cuts[field] = [first - len(left), last - len(left)]
    try:
        plain = render(bare)
    except REFUSALS:
        return none
    again = _seen(render, bare, cuts, plain)
    if again is None or any(len(seen) < 2 for seen in again.values()):
        return none
    result: dict[Field, tuple[int, int]] = {}
    for field, seen in found.items():
        (_, start), (_, end) = again[field]
        result[field] = (
            _more(text[: seen[0][1]], plain[:start], own[field][0], True),
            _more(text[seen[-1][1] :], plain[end:], own[field][1], False),
        )
    return result


def _space(text: str, at_end: bool = False) -> str:
    """White space that the text begins with, or ends with."""
    return text[len(text.rstrip()) :] if at_end else text[: len(text) - len(text.lstrip())]


def _more(text: str, plain: str, own: str, at_end: bool) -> int:
    found, template = _space(text, at_end), _space(plain, at_end)
    more = len(found) - len(template)
    kept = own[len(own) - more :] if at_end else own[:more]
    is_own = 0 < more <= len(own) and (found.endswith(kept) if at_end else found.startswith(kept))
    return more if is_own else 0
