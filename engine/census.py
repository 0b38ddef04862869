"""What the keys of a pool are good for, counted while it is read: nothing is dropped unsaid.

A process counts for its part of the pool, the driver adds up. Names are kept only where they are
plain names, as a pool may well hold text in its keys; and not without end, as it may have a new
key in every row.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from engine import formats, terminal
from engine.formats.flat import PROMPTS, RESPONSES

MAX_NAMES = 2000
"""Names that one process keeps."""
MAX_LISTED = 200
"""Names that a record lists."""
MAX_SHOWN = 8
"""Names that a line on the screen lists."""
MAX_HIDDEN = 200
"""Characters of what may turn out to be a name."""
MAX_WIDTH = 40
"""Characters that are shown of it."""
MIN_ROWS = 3
"""Of fewer rows half says nothing."""


_ROLES = frozenset(
    {"role", "from", "speaker", "who", "author", "sender", "participant", "name", "agent", "user"}
)
_TEXTS = frozenset(
    {"content", "value", "text", "says", "message", "utterance", "body", "msg", "say", "contents"}
)
_NO_TURNS = re.compile(r"history|tool|function|reject|completions|non_prefer|_log|^log|negative")
"""Keys under which objects with a role and a text are none that a row is scored for."""


class Names:
    """How many rows have which key; keys that may not be shown, or are too many, are one number."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.others = 0
        self.hidden: Counter[str] = Counter()
        """Those of the others that are short enough to be names, until `reveal` tells."""

    def add(self, names: Iterable[str], times: int = 1) -> None:
        """Count keys of a row; what is known already costs one look-up."""
        counts = self.counts
        for name in names:
            is_known = name in counts or (len(counts) < MAX_NAMES and formats.is_plain_name(name))
            if is_known:
                counts[name] += times
                continue
            self.others += times
            if len(name) <= MAX_HIDDEN and (name in self.hidden or len(self.hidden) < MAX_NAMES):
                self.hidden[name] += times

    def reveal(self, num_rows: int) -> None:
        """Count what at least half of all rows share as a name: it is a column's, and no text."""
        for name, times in self.hidden.items():
            if num_rows >= MIN_ROWS and 2 * times >= num_rows:
                plain = terminal.plain(name.encode("utf-8", "replace").decode())
                self.counts[plain if len(plain) <= MAX_WIDTH else f"{plain[:MAX_WIDTH]}…"] += times
                self.others -= times
        self.hidden.clear()

    def merge(self, other: Names) -> None:
        """Add what another process has counted."""
        for name, times in other.counts.items():
            self.add((name,), times)
        self.others += other.others
        for name, times in other.hidden.items():
            if name in self.hidden or len(self.hidden) < MAX_NAMES:
                self.hidden[name] += times

    def listed(self) -> dict[str, int]:
        """The most frequent names, in an order that does not depend on that of the rows."""
        order = sorted(self.counts, key=lambda name: (-self.counts[name], name))
        return {name: self.counts[name] for name in order[:MAX_LISTED]}

    @property
    def num_unlisted(self) -> int:
        """What `listed` leaves out, each key of each row counted."""
        return self.others + self.counts.total() - sum(self.listed().values())

    def shown(self, noun: str) -> str:
        """``a (3 rows), b (1)`` and how many names more there are."""
        names = list(self.listed().items())[:MAX_SHOWN]
        texts = [
            f"{name} ({times:,}{f' {noun}' if not i else ''})"
            for i, (name, times) in enumerate(names)
        ]
        if len(self.counts) > MAX_SHOWN:
            texts.append(f"{len(self.counts) - MAX_SHOWN:,} names more")
        if self.others:
            texts.append(f"names not shown ({self.others:,})")
        return ", ".join(texts)


@dataclass
class Census:
    """Of one part of a pool, or of all of it."""

    unused: Names = field(default_factory=Names)
    """Keys that hold something and play no part, by rows."""
    num_without_source: int = 0
    """Rows that lack the configured source field."""
    without_source: Names = field(default_factory=Names)
    """What those rows have instead."""
    rejected: Names = field(default_factory=Names)
    """Keys of rejected rows."""
    lists: Names = field(default_factory=Names)
    """Those under which rejected rows hold a list of objects, as turns are; keys of these objects
    are named ``turns[].text``."""

    def merge(self, other: Census) -> None:
        """Add what another process has counted."""
        self.unused.merge(other.unused)
        self.num_without_source += other.num_without_source
        self.without_source.merge(other.without_source)
        self.rejected.merge(other.rejected)
        self.lists.merge(other.lists)

    def reveal(self, num_rows: int, num_rejected: int) -> None:
        """Take for names of columns what at least half of the rows have as keys."""
        self.unused.reveal(num_rows)
        self.without_source.reveal(self.num_without_source)
        self.rejected.reveal(num_rejected)

    def add_rejected(self, row: Mapping[str, Any]) -> None:
        """Count the keys of a row that became no conversation."""
        for key, value in row.items():
            if formats.is_empty(value):
                continue
            self.rejected.add((key,))
            first = cast("list[object]", value)[0] if isinstance(value, list) else None
            if isinstance(first, dict) and _may_be_turns(key, first):
                self.lists.add((key, *(f"{key}[].{name}" for name in first)))

    def add_without_source(self, row: Mapping[str, Any]) -> None:
        """Count the keys of a row that lacks the configured source field."""
        self.num_without_source += 1
        self.without_source.add(_leaves(row))

    def turn_keys(self) -> tuple[str, str]:
        """The key under which most rejected rows hold what may be turns, and the keys in those."""
        listed = list(self.lists.listed())
        key = next((name for name in listed if "[]" not in name), "")
        inside = [name for name in listed if name.startswith(f"{key}[].")]
        return key, ", ".join(name.partition("[].")[2] for name in inside[:MAX_SHOWN])

    def fields_hint(self) -> str:
        """Which settings would map the rejected rows, as far as their keys tell."""
        key, words = self.turn_keys()
        if key:
            return (
                f"the rows hold lists of objects under {key!r} (each with {words}): --set "
                f"pool.fields.turns={key}, and pool.fields.role=… pool.fields.content=… where "
                "their keys are not role and content, or from and value"
            )
        names = list(self.rejected.listed())
        prompt = closest(names, PROMPTS) or "…"
        response = closest([name for name in names if name != prompt], RESPONSES) or "…"
        keys = f"the rows have the keys {', '.join(names[:MAX_SHOWN])}: " if names else ""
        prompt = _argument(f"pool.fields.prompt={prompt}")
        response = _argument(f"pool.fields.response={response}")
        return (
            f"{keys}name them with --set {prompt} --set {response}, or for rows with a list of "
            "turns --set pool.fields.turns=…"
        )


def _may_be_turns(key: str, first: Mapping[str, object]) -> bool:
    """Whether a list of such objects may be the conversation of its row."""
    words = {name.lower() for name in first}
    return not (
        _NO_TURNS.search(key.lower()) or words.isdisjoint(_ROLES) or words.isdisjoint(_TEXTS)
    )


def _argument(text: str) -> str:
    """As a shell takes it; what is to be filled in stays as it is."""
    return text if text.endswith("…") else shlex.quote(text)


def _leaves(row: Mapping[str, object], depth: int = 3) -> Iterator[str]:
    """Names of the keys, those inside objects with the way to them."""
    for key, value in row.items():
        if isinstance(value, dict) and value and depth:
            inside = cast("dict[str, object]", value)
            yield from (f"{key}.{name}" for name in _leaves(inside, depth - 1))
        else:
            yield key


def closest(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """The one of the names that is most like one of those wanted, in any case; None without."""
    by_lower = {name.lower(): name for name in names}
    for word in wanted:
        if found := difflib.get_close_matches(word.lower(), by_lower, 1, 0.75):
            return by_lower[found[0]]
    return None
