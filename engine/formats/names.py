"""A value that a setting names in each row, such as its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from engine.formats.values import Row, is_empty, json_text


@dataclass(frozen=True, slots=True)
class Found:
    """What was found under a name."""

    value: object
    path: tuple[str, ...]
    """The keys that lead to it, from the row inwards."""
    holder: Row
    """The object that holds it."""

    @property
    def text(self) -> str:
        """The value as text that fits a column: half a surrogate pair becomes a question mark."""
        value = self.value
        text = json_text(value) if isinstance(value, list | dict) else str(value)
        return text.encode("utf-8", "replace").decode()

    def left_of(self, unused: Sequence[str]) -> tuple[str, ...]:
        """The row's keys that play no part, when this value plays one.

        Of the object that holds it the other keys are named instead of its own.
        """
        top = self.path[0]
        left = [name for name in unused if name != top]
        if len(self.path) > 1 and len(left) < len(unused):
            start = ".".join(self.path[:-1])
            left += [
                f"{start}.{name}"
                for name, value in self.holder.items()
                if name != self.path[-1] and not is_empty(value)
            ]
        return tuple(left)


def find(row: Row, name: str) -> Found | None:
    """The value under a name; None where there is none, or an empty one.

    ``meta.source`` is the key of that very name, else `source` in the object under `meta`.
    """
    value = row.get(name)
    if not is_empty(value):
        return Found(value, (name,), row)
    at = name.find(".")
    while at >= 0:
        inside = row.get(name[:at])
        if isinstance(inside, dict):
            found = find(cast("dict[str, object]", inside), name[at + 1 :])
            if found is not None:
                return Found(found.value, (name[:at], *found.path), found.holder)
        at = name.find(".", at + 1)
    return None
