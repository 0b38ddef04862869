"""Which text behind a response is its end-of-turn token.

It may be a special token or ordinary text, another one at the conversation's end (GPT-OSS), have
EOS behind it (Phi-3), or not be there at all, and then what follows a response is the next turn's
header (GLM-4), or the header of an answer that the template asks for without being told to. What
stands around a made-up conversation tells these apart (`gaps`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from engine.chat.gaps import Atoms, Gaps, Text, common, gaps_of
from engine.chat.rendering import Renderer


@dataclass(frozen=True)
class Ends:
    """The end-of-turn tokens of one template, and the headers that are none."""

    atoms: Atoms
    middle: str = ""
    """Behind a response that another turn follows; empty where there is none."""
    last: str = ""
    """Behind the last response; empty where there is none."""
    rest: str = ""
    """The header that stands behind the last response where that has no end token."""
    openers: frozenset[str] = frozenset()
    """Markers that a turn's header begins with."""
    headers: tuple[str, ...] = ()
    """What stands between a user turn and its answer; none where no made-up turns were taken."""

    def find(self, text: str, place: int, is_last: bool) -> tuple[int, int] | None:
        """Span of the end-of-turn token of the response that ends at `place`; white space between
        them is no part of it.
        """
        start = place
        while start < len(text) and text[start].isspace():
            start += 1
        first = (self.last, self.middle) if is_last else (self.middle, self.last)
        end = next((end for end in first if end and text.startswith(end, start)), None)
        if end is None and (is_last or not self.headers) and not self._is_rest(text[start:]):
            special = self.atoms.special.match(text, start)
            end = special.group() if special and special.group() not in self.openers else None
        if end is None:
            return None
        return start, start + len(end)

    def is_over(self, text: str, place: int) -> bool:
        """Whether nothing of the last response can follow `place`: only white space does, or the
        header that the template puts behind every last response.
        """
        return not text[place:].strip() or self._is_rest(text[place:])

    def _is_rest(self, text: str) -> bool:
        return bool(self.rest) and _numberless(text) == _numberless(self.rest)

    def header_in(self, gap: str) -> int | None:
        """Where in the text between a thought and its answer a header begins that also stands
        before answers without a thought. A tag that closes the thought is none.
        """
        atoms = self.atoms.cut(gap)
        for count, atom in enumerate(atoms):
            header = "".join(atoms[count:])
            if atom in self.openers and any(one.endswith(header) for one in self.headers):
                return len(gap) - len(header)
        whole = {header.strip() for header in self.headers}
        return 0 if self.atoms.first_marker(atoms) and gap.strip() in whole else None


def learn(renderer: Renderer, tokenizer: PreTrainedTokenizerBase) -> Ends:
    """What a template puts behind its responses."""
    atoms = Atoms(tokenizer)
    gaps = gaps_of(renderer, atoms)
    if gaps is None:
        return Ends(atoms)
    openers = _openers(gaps, atoms)
    middle, last = _markers(gaps, atoms, openers)
    line = "" if middle or last else _line(gaps, atoms)
    if not middle and not atoms.first_marker(gaps.last):
        middle = last = line
    rest = "" if last else _header_at_end(gaps)
    headers = tuple("".join(header) for header in gaps.headers)
    return Ends(atoms, middle, last, rest, openers, headers)


def _openers(gaps: Gaps, atoms: Atoms) -> frozenset[str]:
    """Markers that the conversation begins with, and the first of the generation prompt's.

    White space ends them: behind it may be the end of a system turn that is empty.
    """
    found = {*takewhile(atoms.is_marker, gaps.before), atoms.first_marker(gaps.prompt)}
    return frozenset(found - {"", atoms.eos})


def _always_asks(gaps: Gaps) -> bool:
    """Whether the template puts the generation prompt behind every conversation."""
    asked = "".join(gaps.asked or gaps.last).strip()
    return bool(asked) and asked in ["".join(header).strip() for header in gaps.headers]


def _header_at_end(gaps: Gaps) -> str:
    """What is behind the last answer, if it is a header; empty otherwise."""
    last, asked = "".join(gaps.last).strip(), "".join(gaps.asked or gaps.last).strip()
    if _numberless(last) != _numberless(asked):
        return ""
    others = ["".join(other).strip() for other in (*gaps.headers, *gaps.middles)]
    return last if any(_numberless(one).startswith(_numberless(last)) for one in others) else ""


def _markers(gaps: Gaps, atoms: Atoms, openers: frozenset[str]) -> tuple[str, str]:
    """Markers that are end-of-turn tokens, in the middle and at the end."""
    first, always = atoms.first_marker, _always_asks(gaps)
    middle, last = first(_stable(gaps)), first(gaps.last)
    if middle and middle != atoms.eos:
        own, is_told = _without_header(gaps)
        is_own = is_told and first(own) == middle
        is_behind_all = middle in (last, first(gaps.asked))
        is_before_header = bool(openers.intersection(_stable(gaps)))
        if middle == last and not always:
            pass  # behind every answer, and nobody is asked for another
        elif middle in openers or not (is_behind_all or is_own or is_before_header):
            middle = ""
    if last and last not in (atoms.eos, middle):
        # Not the header of the next answer, where that is asked for. Behind an end token that
        # user turns have as well, it begins with what the conversation began with.
        is_asked = always and not openers.intersection(gaps.last[1:])
        begins_header = bool(gaps.middles) and last == first(gaps.headers[-1])
        if last in openers or is_asked or begins_header:
            last = ""
    return middle, last


def _line(gaps: Gaps, atoms: Atoms) -> str:
    """The line of ordinary text that ends every answer, the last one too."""
    last = atoms.first_line(gaps.last)
    always = _always_asks(gaps)
    if not last or (always and last == atoms.first_line(gaps.headers[-1])):
        return ""
    if not gaps.middles:
        return last
    own, is_told = _without_header(gaps)
    stable = own[: len(_stable(gaps))]
    if len(stable) < len(own):  # cut where rounds vary: the line that is cut is a header
        while stable and "\n" not in stable[-1]:
            stable.pop()
    line = atoms.first_line(stable)
    if always and line != last:  # the answer that is asked for is on the end's own line
        shared = len(common(gaps.last[::-1], gaps.asked[::-1]))
        last = atoms.first_line(gaps.last[: len(gaps.last) - shared])
    if line == last:
        return line
    # A comma or a bracket may follow an end that is otherwise the same.
    is_sure = is_told and not always and len(stable) == len(own)
    return atoms.first_line(common(_stripped(stable), _stripped(gaps.last))) if is_sure else ""


def _stripped(text: Text) -> Text:
    return text[1:] if text and text[0].isspace() else text


def _stable(gaps: Gaps) -> Text:
    """What stands behind every answer that another round follows."""
    return common(gaps.middles[0], gaps.middles[-1]) if gaps.middles else []


def _without_header(gaps: Gaps) -> tuple[Text, bool]:
    """The text behind an answer without the user's header, and whether there is one.

    A header is what the first user turn begins with as well; before that one a system prompt may
    end as answers do.
    """
    middle = gaps.middles[0] if gaps.middles else []
    shared = len(common(gaps.before[::-1], middle[::-1]))
    header = middle[len(middle) - shared :]
    return middle[: len(middle) - shared], bool("".join(header).strip())


def _numberless(text: str) -> str:
    """The text with its numbers made alike: rounds may be counted."""
    return re.sub(r"\d+", "0", text.strip())
